"""How the runs were set up and how they ended: settings, failures, code, and where they are."""

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scaling_fl.reporting.report.data import ReportRun
from scaling_fl.reporting.report.groups import RunGroup, settings_of
from scaling_fl.reporting.report.html import Cell, Markup, details, element, join, table
from scaling_fl.reporting.run_rows import NAMES_AND_PLACES, differing, shown
from scaling_fl.reporting.summary import client_title, duration, size

MAX_FAILURES = 20
PAGE = "report.html"


def settings_section(groups: Sequence[RunGroup]) -> Markup:
    """Show in which settings the groups differ, and which all runs have in common."""
    settings = [settings_of(group.runs[0]) for group in groups]
    names = differing(settings)
    parts = []
    if names:
        rows = [
            [group.label, *(shown(found.get(name)) for name in names)]
            for group, found in zip(groups, settings, strict=True)
        ]
        header = ["group", *names]
        parts.append(
            table("Settings in which the groups differ", header, rows, is_sortable=True,
                  is_filtered=len(rows) > 20)
        )  # fmt: skip
    else:
        parts.append(element("p", "The settings of all runs are the same, seeds aside."))
    everywhere = [run.row.settings for group in groups for run in group.runs]
    varying = {*differing(everywhere), *NAMES_AND_PLACES}
    common = [
        [name, shown(value)] for name, value in sorted(everywhere[0].items()) if name not in varying
    ]
    whole = table("Settings that all runs share", ["setting", "value"], common)
    return join([*parts, details(f"{len(common)} settings that all runs share", whole)])


def runs_section(groups: Sequence[RunGroup], folder: Path) -> Markup:
    """Show every run: how it ended, what it took, and where it is, relative to ``folder``."""
    rows = [
        [
            _link(run.row.run, _page_of(run), folder),
            group.label,
            *map(shown, run.measured.seeds),
            run.ending,
            _cell(run.row.metrics.get(run.metric or ""), "{:.4f}".format),
            _cell(run.row.bytes, size),
            _cell(run.row.epsilon, "{:.4g}".format),
            _cell(run.row.seconds, duration),
            run.row.host or "-",
            len(run.failures),
            len(run.attempts) or 1,
            _link("checkpoint", run.checkpoint, folder) if run.checkpoint else "-",
        ]
        for group in groups
        for run in (*group.runs, *group.repeated)
    ]
    header = ["run", "group", "seed", "data_seed", "how it ended", "last value", "bytes", "epsilon",
              "time of rounds", "machine", "left out", "starts", "state"]  # fmt: skip
    numeric = header[2:4] + header[5:9] + header[10:12]
    return table("Runs", header, rows, numeric=numeric, wide=["group", "how it ended"],
                 is_sortable=True, is_filtered=len(rows) > 20)  # fmt: skip


def _cell(value: float | None, write: Callable[[float], str]) -> Cell:
    return Cell("-" if value is None else write(value), value)


def _page_of(run: ReportRun) -> str | None:
    if not run.folder:
        return None
    page = Path(run.folder) / PAGE
    return str(page) if page.exists() else run.folder


def _link(text: str, place: str | None, folder: Path) -> Markup | str:
    if not place:
        return text
    if "://" in place:
        return element("span", text, title=place)
    return element("a", text, href=quote(os.path.relpath(place, folder)))


def failures_section(runs: Sequence[ReportRun]) -> Markup:
    """Show the clients that were left out, and what the runs have warned of."""
    lines = [line for run in runs for line in _failures(run)]
    warned = [
        [run.row.run, str(note.get("text", ""))]
        for run in runs
        for note in run.notes
        if note.get("level") == "warning"
    ]
    parts = [
        table("Clients that were left out", ["run", "client", "rounds", "reason"], lines)
        if lines
        else element("p", "No client was left out of a round."),
        table("Warnings", ["run", "warning"], warned)
        if warned
        else element("p", "No run has warned of anything."),
    ]
    return join(parts)


def _failures(run: ReportRun) -> list[list[object]]:
    def key(row: Mapping[str, Any]) -> tuple[str, str]:
        title = client_title(row.get("client", -1), row.get("name"))
        return title, str(row.get("reason") or "no reason given")

    rows = sorted(run.failures, key=key)
    found: list[list[object]] = [
        [run.row.run, client, ", ".join(str(row.get("round", "?")) for row in same), reason]
        for (client, reason), same in groupby(rows, key=key)
    ]
    if len(found) <= MAX_FAILURES:
        return found
    more = f"and {len(found) - MAX_FAILURES} more, in tables/failures.csv"
    return [*found[:MAX_FAILURES], [run.row.run, more, "", ""]]


def code_section(runs: Sequence[ReportRun]) -> Markup:
    """Show by which code and libraries the runs were computed."""
    rows = [
        [commit, dirty, sources, len(same), ", ".join(run.row.run for run in same[:5])
         + ", ..." * (len(same) > 5), versions]
        for (commit, dirty, sources, versions), same in _same(runs, _code)
    ]  # fmt: skip
    header = ["commit", "changed since", "hash of the sources", "runs", "which", "libraries"]
    found = table("Code that computed the runs", header, rows, numeric=["runs"])
    if len(rows) < 2:
        return found
    warning = "The runs were computed by different states of the code: a difference may be its."
    return join([element("p", warning, class_="warning"), found])


def _code(run: ReportRun) -> tuple[str, str, str, str]:
    code = run.code
    if code is None:
        return "not recorded", "not recorded", "not recorded", ""
    dirty = {True: "yes", False: "no", None: "not recorded"}[code.is_dirty]
    commit, sources = (code.commit or "not recorded")[:12], (code.sources or "not recorded")[:12]
    return commit, dirty, sources, ", ".join(code.versions)


def _same(
    runs: Sequence[ReportRun], key: Callable[[ReportRun], tuple[str, str, str, str]]
) -> list[tuple[tuple[str, str, str, str], list[ReportRun]]]:
    return [(found, list(same)) for found, same in groupby(sorted(runs, key=key), key=key)]
