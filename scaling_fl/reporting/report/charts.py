"""The charts, as specifications of Vega-Lite; ``assets/page.js`` puts in what is chosen."""

from collections.abc import Sequence
from typing import Any

from scaling_fl.reporting.comparison import BYTES, EPSILON, ROUNDS, SECONDS
from scaling_fl.reporting.report.clients import ClientSummary, metrics_of, summarise
from scaling_fl.reporting.report.data import ReportRun
from scaling_fl.reporting.report.equal_budget import BudgetView

Spec = dict[str, Any]
AXIS_TITLES = {
    BYTES: "bytes sent and received by all clients, MB (10^6 bytes)",
    ROUNDS: "round",
    SECONDS: "time that the rounds took on their machine, s",
    EPSILON: "epsilon spent",
}
MAX_ROWS = 60
"""Groups that one chart of intervals can show; the table has all."""
MAX_CLIENTS = 100


def shown_metric(name: str) -> str:
    return name.removeprefix("validation.") if name.startswith("validation.") else name


def intervals(view: BudgetView, metric: str, amount: str, *, is_less_better: bool) -> Spec:
    """Draw the mean of each group with its 95 % interval, and each of its runs."""
    shown = [each for each in view.reached if each.mean]
    if len(shown) > MAX_ROWS:
        order = sorted(shown, key=lambda e: e.mean.mean if e.mean else 0.0)
        best = order[:MAX_ROWS] if is_less_better else order[-MAX_ROWS:]
        shown = [each for each in shown if each in best]
    means = [
        {
            "group": each.group.label,
            "mean": each.mean.mean,
            "low": each.mean.mean - each.mean.half if each.mean.half is not None else None,
            "high": each.mean.mean + each.mean.half if each.mean.half is not None else None,
            "runs": each.mean.count,
        }
        for each in shown
        if each.mean
    ]
    runs = [
        {"group": each.group.label, "run": run.row.run, "value": value, "round": number}
        for each in shown
        for run, number, value in each.values
    ]
    title = f"{shown_metric(metric)} within {amount}"
    x = {"type": "quantitative", "title": title, "scale": {"zero": False}, "axis": {"tickCount": 8}}
    y: Spec = {"field": "group", "type": "nominal", "sort": None, "title": None}
    y["axis"] = {"grid": True}
    rule: Spec = {
        "data": {"values": [row for row in means if row["low"] is not None]},
        "mark": {"type": "rule", "strokeWidth": 2},
        "encoding": {"y": y, "x": x | {"field": "low"}, "x2": {"field": "high"}},
    }
    circles: Spec = {
        "data": {"values": runs},
        "mark": {"type": "point", "shape": "circle", "size": 28, "filled": False, "opacity": 0.75},
        "encoding": {"y": y, "x": x | {"field": "value"},
                     "tooltip": _tip("group", "run", "round", "value")},
    }  # fmt: skip
    diamonds: Spec = {
        "data": {"values": means},
        "mark": {"type": "point", "shape": "diamond", "size": 80, "filled": True, "opacity": 1},
        "encoding": {"y": y, "x": x | {"field": "mean"},
                     "tooltip": _tip("group", "mean", "low", "high", "runs")},
    }  # fmt: skip
    return {
        "description": f"{title}: mean of each group of runs with its 95 % interval, and each run. "
        "The table below has the same numbers.",
        "height": len(shown) * (24 if len(shown) <= 24 else 15),
        "layer": [*[rule] * bool(rule["data"]["values"]), circles, diamonds],
    }


def _tip(*names: str) -> list[Spec]:
    return [{"field": name} for name in names]


def curve_chart() -> Spec:
    """Draw the chosen groups in colour, the others in grey, and what is reached without learning.

    Its data sets are ``points`` (label, shown, x, mean, low, high, round) and ``baseline``.
    """
    x = {"field": "x", "type": "quantitative", "title": "", "scale": {"zero": False}}
    y = {"type": "quantitative", "title": "", "scale": {"zero": False}}
    legend = {"orient": "bottom", "columns": 2, "labelLimit": 420, "symbolType": "stroke"}
    legend |= {"symbolSize": 900, "symbolStrokeWidth": 3, "symbolOpacity": 1}
    colour = {"field": "label", "type": "nominal", "sort": None, "title": None, "legend": legend}
    of_shown = [{"filter": "datum.shown"}]
    tip = _tip("label", "round", "x", "mean", "low", "high")
    return {
        "height": 440,
        "layer": [
            {
                "data": {"name": "points"},
                "transform": [{"filter": "!datum.shown"}],
                "mark": {"type": "line", "strokeWidth": 1, "color": "gray", "opacity": 0.4},
                "encoding": {"x": x, "y": y | {"field": "mean"}, "detail": {"field": "label"}},
            },
            {
                "data": {"name": "points"},
                "transform": [{"filter": "datum.shown && datum.high > datum.low"}],
                "mark": {"type": "area", "opacity": 0.18, "tooltip": None},
                "encoding": {"x": x, "y": y | {"field": "low"}, "y2": {"field": "high"},
                             "fill": colour},
            },
            {
                "data": {"name": "points"},
                "transform": of_shown,
                "mark": {"type": "line", "strokeWidth": 2, "point": {"size": 16}},
                "encoding": {"x": x, "y": y | {"field": "mean"}, "color": colour,
                             "strokeDash": {"field": "label", "type": "nominal", "sort": None,
                                            "title": None, "legend": legend},
                             "tooltip": tip},
            },
            {
                "data": {"name": "baseline"},
                "mark": {"type": "rule", "strokeDash": [2, 3], "color": "gray"},
                "encoding": {"y": y | {"field": "value"}},
            },
            {
                "data": {"name": "baseline"},
                "mark": {"type": "text", "align": "left", "baseline": "bottom", "dx": 4, "x": 0},
                "encoding": {"y": y | {"field": "value"}, "text": {"field": "text"}},
            },
        ],
    }  # fmt: skip


def client_charts(runs: Sequence[ReportRun]) -> dict[str, Spec]:
    """Draw the clients of one run: their labels, how often they were drawn, what they reached.

    The data set of each is ``clients``, and of ``labels`` it has a row for a client and a label.
    """
    metrics = metrics_of([client for run in runs[:1] for client in summarise(run)])
    charts = {
        "labels": _bars("examples", "examples of each label", colour="label"),
        "rounds": _bars("times", "rounds that a client was drawn in", colour="outcome"),
        "norm": _bars("update_norm", "mean norm of its updates (drift)"),
    }
    return charts | {
        f"last.{name}": _bars(f"last.{name}", f"{name} of its training in its last round")
        for name in metrics
    }


def _bars(field: str, title: str, *, colour: str | None = None) -> Spec:
    # A dot in a name would be a path in Vega-Lite.
    x: Spec = {"field": field.replace(".", "\\."), "type": "quantitative", "title": title}
    x["axis"] = {"tickCount": 6, **({"tickMinStep": 1} if colour else {})}
    y: Spec = {"field": "client", "type": "nominal", "sort": None, "title": "client"}
    y["axis"] = {"labelLimit": 140}
    encoding: Spec = {"x": x, "y": y}
    mark: Spec = {"type": "bar", "tooltip": True}
    if colour:
        legend = {"orient": "bottom", "columns": 3, "labelLimit": 150}
        encoding["color"] = {"field": colour, "type": "nominal", "sort": None, "title": None}
        encoding["color"] |= {"legend": legend}
    return {
        "description": f"Bars: {title}. The table below has the same numbers.",
        "data": {"name": "clients"},
        "mark": mark,
        "encoding": encoding,
    }


def client_columns(clients: Sequence[ClientSummary]) -> dict[str, list[Any]]:
    """Return what the charts and the table of a run's clients show, by column."""
    columns: dict[str, list[Any]] = {
        "client": [each.name or str(each.client) for each in clients],
        "num_examples": [each.num_examples for each in clients],
        "rounds": [each.rounds for each in clients],
        "failed": [each.failed for each in clients],
        "update_norm": [_short(each.update_norm) for each in clients],
        "bytes": [each.num_bytes for each in clients],
        "seconds": [_short(each.seconds) for each in clients],
    }
    names = metrics_of(clients)
    return columns | {f"last.{n}": [_short(c.last.get(n)) for c in clients] for n in names}


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
