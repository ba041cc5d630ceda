"""The curves of a set of groups, over rounds, bytes, seconds and epsilon."""

from collections.abc import Mapping, Sequence

from scaling_fl.reporting.comparison import ROUNDS, falls
from scaling_fl.reporting.report.charts import AXIS_TITLES, curve_chart, shown_metric
from scaling_fl.reporting.report.curves import axes_of, drawn_curves, metrics_to_draw
from scaling_fl.reporting.report.equal_budget import BudgetView
from scaling_fl.reporting.report.figures import figure
from scaling_fl.reporting.report.groups import AlikeSet
from scaling_fl.reporting.report.html import Markup, element, join

MAX_COLOURED = 8
"""Groups in colour at first; the others are grey until they are chosen."""


def curve_section(alike: AlikeSet, views: Sequence[BudgetView], number: int) -> Markup:
    """Show one chart, with choices of the metric, of what it is drawn against, and of groups."""
    coloured = _coloured(alike, views)
    metrics = metrics_to_draw(alike.runs)
    if not metrics:
        return element("p", "No metric was recorded.")
    found = {metric: drawn_curves(alike.groups, metric) for metric in metrics}
    axes = [ROUNDS, *dict.fromkeys(a for columns, _ in found.values() for a in axes_of(columns))]
    name = f"curves-{number}"
    baseline = alike.groups[0].runs[0].baseline
    chart = figure(
        name,
        "Curves",
        curve_chart(),
        labels=[group.label for group in alike.groups],
        coloured=coloured,
        metrics={
            metric: {
                "columns": columns,
                "title": shown_metric(metric),
                "baseline": baseline.get(metric),
            }
            for metric, (columns, _) in found.items()
        },
        axes={axis: AXIS_TITLES[axis] for axis in axes},
    )
    choices = element(
        "div",
        _choice("Metric", "metric", {m: shown_metric(m) for m in metrics}, name),
        _choice("Against", "axis", {axis: axis for axis in axes}, name),
        class_="choices",
    )
    note = element("p", _note(alike, max(every for _, every in found.values())))
    groups = _groups(alike, name, coloured) if len(alike.groups) > 1 else None
    return join([note, choices, chart, groups])


def _coloured(alike: AlikeSet, views: Sequence[BudgetView]) -> list[int]:
    """Choose all groups, or of many the reference and those with the best means of the first view.

    Returns their indices.
    """
    everyone = list(range(len(alike.groups)))
    if len(everyone) <= MAX_COLOURED or not views:
        return everyone[:MAX_COLOURED]
    sign = 1.0 if falls(alike.metric or "") else -1.0
    means = {id(each.group): each.mean.mean for each in views[0].reached if each.mean}
    order = sorted(
        (n for n in everyone if id(alike.groups[n]) in means),
        key=lambda n: sign * means[id(alike.groups[n])],
    )
    first = [n for n in everyone if alike.groups[n] is views[0].reference]
    return list(dict.fromkeys([*first, *order]))[:MAX_COLOURED]


def _note(alike: AlikeSet, every: int) -> str:
    thinned = f" One of {every} evaluated rounds is drawn, and the last one." if every > 1 else ""
    if all(len(group.runs) == 1 for group in alike.groups):
        return f"Each line is a run; nothing is smoothed.{thinned}"
    return (
        "A line is the mean over the runs of a group at each round, and its band reaches from the "
        f"lowest to the highest of them; nothing is smoothed.{thinned}"
    )


def _choice(title: str, what: str, options: Mapping[str, str], name: str) -> Markup:
    shown = [element("option", text, value=value) for value, text in options.items()]
    return element("label", f"{title} ", element("select", *shown, data_of=name, data_what=what))


def _groups(alike: AlikeSet, name: str, coloured: Sequence[int]) -> Markup:
    boxes = [
        element(
            "label",
            element("input", type="checkbox", value=index, data_of=name, data_what="line",
                    checked=index in coloured),
            f" {group.label}",
        )
        for index, group in enumerate(alike.groups)
    ]  # fmt: skip
    few = len(alike.groups) > len(coloured)
    best = "At first, these are the reference and the groups with the best means above." * few
    summary = element("summary", "Which groups are in colour; the others are grey")
    return element("details", summary, element("p", best), element("div", *boxes, class_="boxes"))
