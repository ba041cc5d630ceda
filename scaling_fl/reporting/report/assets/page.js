// What the page does: themes, choices, charts by Vega-Lite, their numbers, and tables to be sorted.
(() => {
  "use strict";
  const root = document.documentElement;
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const one = (selector, inside = document) => inside.querySelector(selector);
  // Told apart without colour, too, by their dashes; after Okabe and Ito, lighter on dark.
  const COLOURS = {
    light: ["#0072b2", "#c4500a", "#007a5a", "#a3467f", "#7a5c00", "#4b4b4b", "#2f8fd0", "#d62728"],
    dark: ["#56b4e9", "#f28e2b", "#2fc08f", "#e08cc0", "#f0e442", "#c8c8c8", "#8ab4ff", "#ff8c85"],
  };
  const DASHES = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [1, 0], [6, 3], [2, 2], [8, 3, 2, 3]];
  const LABELS = 19; // that can be told apart, and one colour for all others
  const charts = new Map();

  function remembered(theme) {
    try {
      if (theme === undefined) return localStorage.getItem("scaling-fl-theme");
      localStorage.setItem("scaling-fl-theme", theme);
    } catch { /* a page from the disk may have no storage */ }
    return null;
  }
  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }
  function setTheme(theme) {
    root.dataset.theme = theme;
    remembered(theme);
    redrawAll();
  }
  function look(width) {
    const style = getComputedStyle(root), narrow = width < NARROW;
    const of = (name) => style.getPropertyValue(name).trim();
    const text = of("--text"), grid = of("--grid"), font = "system-ui, 'DejaVu Sans', sans-serif";
    return {
      background: "transparent", font, padding: { left: 5, right: 12, top: 5, bottom: 5 },
      view: { stroke: null },
      axis: { labelColor: text, titleColor: text, gridColor: grid, domainColor: of("--line"), tickColor: of("--line"), labelFlush: false,
        labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal", labelOverlap: true },
      axisBand: { labelOverlap: false, labelLimit: narrow ? 170 : Math.min(460, width * 0.45) },
      legend: { labelColor: text, titleColor: text, labelFontSize: 12 },
      range: { category: COLOURS[isDark() ? "dark" : "light"] },
      mark: { color: COLOURS[isDark() ? "dark" : "light"][0] },
      rule: { color: COLOURS[isDark() ? "dark" : "light"][0] },
      text: { color: of("--quiet") },
    };
  }

  // Data of a chart: the specification, and what it is filled with.
  function rowsOfCurves(data) {
    const metric = data.metrics[data.metric], columns = metric.columns, x = columns[data.axis === "rounds" ? "round" : data.axis];
    const scale = data.axis === "bytes" ? 1e-6 : 1;
    return columns.group.map((group, i) => ({
      label: data.labels[group], group, shown: data.lines.has(group), round: columns.round[i],
      x: x[i] === null ? null : x[i] * scale, mean: columns.mean[i], low: columns.low[i], high: columns.high[i],
    })).filter((row) => row.x !== null);
  }
  function fillCurves(spec, data) {
    const metric = data.metrics[data.metric], rows = rowsOfCurves(data);
    const labels = [...data.lines].sort((a, b) => a - b).map((group) => data.labels[group]);
    const palette = COLOURS[isDark() ? "dark" : "light"];
    const told = metric.baseline === null || metric.baseline === undefined ? []
      : [{ value: metric.baseline, text: "without looking at the input" }];
    spec.datasets = { points: rows, baseline: told };
    spec.description = `Lines: ${metric.title} against ${data.axes[data.axis]}, of ${labels.join(", ")}.`;
    const used = { "!datum.shown": rows.some((row) => !row.shown), "datum.shown && datum.high > datum.low": rows.some((row) => row.shown && row.high > row.low) };
    spec.layer = spec.layer.filter((layer) => (layer.data.name === "baseline" ? told.length : used[layer.transform[0].filter] !== false));
    const heights = [...rows.flatMap((row) => [row.low, row.high]), ...told.map((line) => line.value)].filter((y) => y !== null);
    const lowest = Math.min(...heights), highest = Math.max(...heights), spread = Math.abs(lowest) / 10 || 1;
    for (const layer of spec.layer) {
      const code = layer.encoding;
      if (code.x) {
        code.x.title = data.axes[data.axis];
        code.x.axis = { tickCount: 10, ...(data.axis === "rounds" ? { tickMinStep: 1 } : {}) };
      }
      code.y.title = metric.title;
      if (lowest === highest) code.y.scale.domain = [lowest - spread, highest + spread];
      for (const [channel, range] of [["fill", palette], ["color", palette], ["strokeDash", DASHES]]) {
        if (!code[channel]) continue;
        code[channel].scale = { domain: labels, range: labels.map((_, i) => range[i % range.length]) };
        if (data.labels.length === 1) code[channel].legend = null;
      }
    }
    document.getElementById(`${data.id}-title`).textContent = `${metric.title} by ${data.axis}`;
    return rows.filter((row) => row.shown).map(({ label, round, x, mean, low, high }) =>
      ({ group: label, round, [data.axes[data.axis]]: x, mean, low, high }));
  }
  function rowsOfClients(kind) {
    const run = clients.data.runs[clients.run], columns = run.columns, names = columns.client, most = clients.data.most;
    if (kind === "labels") {
      const split = clients.data.histograms[run.histograms];
      if (!split) return [];
      const sum = (n) => split.counts.reduce((total, counts) => total + counts[n], 0);
      const order = split.labels.map((_, n) => n).sort((a, b) => sum(b) - sum(a)), told = new Set(order.slice(0, LABELS));
      const label = (n) => (told.has(n) || order.length === LABELS + 1 ? split.labels[n] : "all other labels");
      return names.slice(0, most).flatMap((client, i) =>
        (split.counts[i] || []).map((examples, n) => ({ client, label: label(n), examples })));
    }
    if (kind === "rounds") return names.slice(0, most).flatMap((client, i) => [
      { client, outcome: "counted", times: columns.rounds[i] }, { client, outcome: "left out", times: columns.failed[i] }]);
    const column = kind === "norm" ? "update_norm" : kind;
    if (!columns[column] || columns[column].every((value) => value === null)) return [];
    return names.slice(0, most).map((client, i) => ({ client, [column]: columns[column][i] }));
  }
  function tableOfClients() {
    const columns = clients.data.runs[clients.run].columns, titles = clients.data.titles;
    return columns.client.map((_, i) => Object.fromEntries(
      Object.keys(columns).map((name) => [titles[name] ?? name, columns[name][i]])));
  }

  const NARROW = 700; // pixels, below which labels are broken into lines
  function fit(spec, width) {
    if (width >= NARROW) return;
    const layers = (spec.layer ?? [spec]).map((layer) => layer.encoding);
    for (const code of layers) for (const channel of ["fill", "color", "strokeDash"]) {
      if (code[channel]?.legend) code[channel].legend.columns = 1;
    }
    const rows = layers.filter((code) => code.y?.field === "group");
    if (!rows.length) return;
    const lines = Math.max(...spec.layer.flatMap((layer) => layer.data.values).map((row) => row.group.split(" ").length));
    for (const code of rows) code.y.axis = { ...code.y.axis, labelExpr: "split(datum.label, ' ')", labelFontSize: 11 };
    spec.height = Math.max(spec.height, new Set(spec.layer.at(-1).data.values.map((row) => row.group)).size * (14 * lines + 6));
  }
  async function draw(chart) {
    const spec = structuredClone(chart.data.spec);
    if (chart.data.metrics) chart.rows = fillCurves(spec, chart.data);
    else if (chart.data.of_clients) {
      chart.rows = rowsOfClients(chart.data.of_clients);
      spec.datasets = { clients: chart.rows };
      const labels = new Set(chart.rows.map((row) => row.label)).size;
      if (labels > COLOURS.light.length) spec.encoding.color.scale = { scheme: "tableau20" };
      spec.height = 14 * new Set(chart.rows.map((row) => row.client)).size;
      chart.figure.hidden = !chart.rows.length;
    } else chart.rows = spec.layer.filter((layer) => layer.mark.type !== "rule").flatMap((layer) => layer.data.values);
    spec.width = "container";
    fit(spec, chart.place.clientWidth);
    spec.autosize = { type: chart.data.metrics ? "fit" : "fit-x", contains: "padding" };
    if (!chart.figure.hidden) {
      chart.view?.finalize();
      chart.view = await vegaEmbed(chart.place, spec, {
        renderer: "svg", ast: true, actions: false, logLevel: 1, config: look(chart.place.clientWidth), tooltip: { theme: isDark() ? "dark" : "light" },
      });
    }
    const numbers = one(`details[data-numbers="${chart.place.id}"]`);
    if (numbers?.open) fillNumbers(numbers);
    chart.place.dataset.drawn = "yes";
  }
  function redrawAll() {
    for (const chart of charts.values()) if (chart.isSeen) draw(chart);
  }

  // Tables
  const CELLS = 4000;
  function build(rows, title) {
    const names = rows.length ? Object.keys(rows[0]) : [];
    const table = document.createElement("table"), caption = table.createCaption();
    const shown = rows.slice(0, CELLS);
    caption.textContent = shown.length < rows.length ? `${title}: the first ${CELLS} of ${rows.length} rows` : title;
    const head = table.createTHead().insertRow();
    for (const name of names) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = name;
      if (typeof shown[0]?.[name] === "number") cell.className = "number";
      head.append(cell);
    }
    const body = table.createTBody();
    for (const row of shown) {
      const line = body.insertRow();
      for (const name of names) {
        const cell = line.insertCell();
        cell.textContent = row[name] ?? "";
        if (typeof row[name] === "number") cell.className = "number";
      }
    }
    table.dataset.sortable = "";
    sortable(table);
    const box = document.createElement("div");
    Object.assign(box, { className: "scroll", tabIndex: 0, role: "region", ariaLabel: `Table: ${title}` });
    box.append(table);
    return box;
  }
  function fillNumbers(details) {
    const chart = charts.get(details.dataset.numbers), place = one(".numbers", details);
    place.replaceChildren(build(chart.rows, place.dataset.title));
  }
  function asCsv(rows) {
    const names = rows.length ? Object.keys(rows[0]) : [];
    const cell = (value) => (/[",\n]/.test(value ?? "") ? `"${String(value).replaceAll('"', '""')}"` : value ?? "");
    return [names, ...rows.map((row) => names.map((name) => row[name]))].map((line) => line.map(cell).join(",")).join("\n");
  }
  function download(name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([asCsv(charts.get(name).rows)], { type: "text/csv" }));
    link.download = `${name}.csv`;
    link.click();
    URL.revokeObjectURL(link.href);
  }
  function keyOf(row, index) {
    const cell = row.cells[index], text = cell.dataset.key ?? cell.textContent.trim(), value = Number(text);
    return text !== "" && !Number.isNaN(value) ? value : text;
  }
  function compare(a, b) {
    if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
    return typeof a === "number" ? -1 : 1;
  }
  function sortable(table) {
    all("thead th", table).forEach((head, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending", body = table.tBodies[0];
        all("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].map((row) => [keyOf(row, index), row]);
        rows.sort(([a], [b]) => (down ? -compare(a, b) : compare(a, b)));
        body.append(...rows.map(([, row]) => row));
      });
    });
  }
  function filtered(table) {
    const label = document.createElement("label"), field = document.createElement("input");
    label.className = "filter";
    field.type = "search";
    label.append(`Only rows of ${table.caption.textContent} with `, field);
    table.closest(".scroll").before(label);
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/);
      for (const row of table.tBodies[0].rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
    });
  }

  // Choices
  function choose(group, value) {
    all(`.choosable[data-group="${group}"]`).forEach((part) => { part.hidden = part.dataset.value !== value; });
  }
  const clients = { data: null, run: 0 };
  function showClients() {
    const place = one("#client-table");
    place.replaceChildren(build(tableOfClients(), `Clients of ${clients.data.runs[clients.run].run}`));
    for (const chart of charts.values()) if (chart.data.of_clients && chart.isSeen) draw(chart);
  }
  function change({ target }) {
    if (target.name?.startsWith("budget-")) choose(target.name, target.value);
    if (target.id === "client-run") { clients.run = Number(target.value); showClients(); }
    const chart = charts.get(target.dataset?.of);
    if (!chart) return;
    if (target.dataset.what === "line") chart.data.lines[target.checked ? "add" : "delete"](Number(target.value));
    else chart.data[target.dataset.what] = target.value;
    draw(chart);
  }

  function start() {
    const theme = remembered();
    if (theme) root.dataset.theme = theme;
    root.dataset.script = "yes";
    all(".noscript").forEach((note) => note.remove());
    one("#theme").addEventListener("click", () => setTheme(isDark() ? "light" : "dark"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
    all("table[data-sortable]").forEach(sortable);
    all("table[data-filtered]").forEach(filtered);
    all(".choosable").forEach((part) => { part.hidden = !part.hasAttribute("data-first"); });
    document.addEventListener("change", change);
    document.addEventListener("click", ({ target }) => {
      if (target.dataset?.download) download(target.dataset.download);
    });
    const stored = one("#client-data");
    if (stored) clients.data = JSON.parse(stored.textContent);
    const seen = new IntersectionObserver((entries) => entries.forEach((entry) => {
      const chart = charts.get(entry.target.id);
      if (entry.isIntersecting && !chart.isSeen) { chart.isSeen = true; draw(chart); }
    }), { rootMargin: "300px" });
    for (const script of all("script[data-chart]")) {
      const data = JSON.parse(script.textContent), place = document.getElementById(script.dataset.chart);
      data.id = place.id;
      if (data.metrics) Object.assign(data, {
        metric: Object.keys(data.metrics)[0], axis: Object.keys(data.axes)[0],
        lines: new Set(data.coloured),
      });
      charts.set(place.id, { data, place, figure: place.closest("figure"), rows: [], isSeen: false });
      seen.observe(place);
    }
    all("details[data-numbers]").forEach((details) => details.addEventListener("toggle", () => {
      const chart = charts.get(details.dataset.numbers);
      if (!details.open) return;
      if (chart.isSeen) fillNumbers(details);
      else { chart.isSeen = true; draw(chart).then(() => fillNumbers(details)); }
    }));
    if (clients.data) showClients();
  }
  start();
})();
