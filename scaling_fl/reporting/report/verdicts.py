"""What the runs say: how far each group is from the reference, and which may not be ranked."""

from collections.abc import Sequence
from itertools import groupby

from scaling_fl.core.metric_names import is_of_all
from scaling_fl.reporting.comparison import BYTES, EPSILON, ROUNDS, WITHHELD, falls
from scaling_fl.reporting.report.charts import MAX_ROWS, intervals, shown_metric
from scaling_fl.reporting.report.data import ReportRun
from scaling_fl.reporting.report.equal_budget import BudgetView, Reached
from scaling_fl.reporting.report.figures import figure
from scaling_fl.reporting.report.groups import AlikeSet
from scaling_fl.reporting.report.html import Markup, details, element, join, table
from scaling_fl.reporting.summary import duration, size

MAX_TOLD = 4
_KINDS = ("better", "worse", "within noise")


def amount_text(budget: str, amount: float) -> str:
    """Write an amount of a budget with its unit."""
    if budget == BYTES:
        return f"{size(amount)} of traffic"
    if budget == ROUNDS:
        return f"{amount:.0f} rounds"
    return f"epsilon {amount:.4g}" if budget == EPSILON else duration(amount)


def refusal(sets: Sequence[AlikeSet]) -> Markup | None:
    """Say which runs are not ranked with which, and why."""
    if len(sets) < 2:
        return None
    kinds = [
        element(
            "li",
            f"{title_of(alike, sets)} ({_counted(len(alike.runs), 'run')})",
            *([": ", "; ".join(alike.unlike_first)] if alike.unlike_first else []),
        )
        for alike in sets
    ]
    return element(
        "div",
        element(
            "p",
            f"They were measured in {len(sets)} ways. Each has a part of its own below, and no "
            "number of one part is better or worse than a number of another. Against the first:",
        ),
        element("ol", *kinds),
        class_="warning",
    )


def title_of(alike: AlikeSet, sets: Sequence[AlikeSet]) -> str:
    """Name a set by its metric and task, and by its number where there are several."""
    row = alike.groups[0].runs[0].row
    metric = shown_metric(alike.metric) if alike.metric else "no metric"
    number = f"Part {sets.index(alike) + 1}: " if len(sets) > 1 else ""
    return f"{number}{metric} on {row.task or 'an unknown task'}"


def facts(alike: AlikeSet) -> Markup:
    """Say what the runs of a set have in common."""
    ended = [run for group in alike.ended for run in group.runs]
    rows = []
    if len(alike.runs) > 1:
        sizes = sorted({len(group.runs) for group in alike.ended})
        rows = [("runs", f"{len(alike.runs)}, of which {len(ended)} came to their end")]
        each = " or ".join(map(str, sizes)) or "no"
        each += f" run{'s' * (sizes != [1])} that differ{'s' * (sizes == [1])} in nothing but seeds"
        rows += [("groups", f"{len(alike.ended)}, each of {each}")]
    first = alike.groups[0].runs[0]
    rows += [
        (f"{name} (hash)" if name.endswith("data") else name, str(value))
        for name, value in first.measured.measure.items()
        if value not in (None, WITHHELD) and not _varies(name, ended)
    ]
    if first.num_test is not None:
        rows += [("test examples", f"{first.num_test:,}")]
    if alike.metric:
        better = "less" if falls(alike.metric) else "more"
        rows += [("better is", f"{better} {shown_metric(alike.metric)}, judged by its name")]
    return _described(rows)


def _described(rows: Sequence[tuple[str, str]]) -> Markup:
    pairs = [element("div", element("dt", name), element("dd", text)) for name, text in rows]
    return element("dl", *pairs, class_="facts")


def outcome(run: ReportRun) -> Markup:
    """Say what a single run came to."""
    row = run.row
    metrics = sorted(name for name in row.metrics if is_of_all(name))
    shown = [n for kind in ("validation.", "train.") for n in metrics if n.startswith(kind)]
    rows = [("how it ended", run.ending)]
    rows += [(shown_metric(name), f"{row.metrics[name]:.4f}") for name in shown]
    rows += [("bytes of all clients", f"{size(row.bytes)} ({row.bytes:,})")] if row.bytes else []
    rows += [("epsilon", f"{row.epsilon:.4g}")] if row.epsilon is not None else []
    rows += [("time of its rounds", duration(row.seconds))] if row.seconds else []
    rows += [("machine", row.host)] if row.host else []
    return _described([("job", row.job or "-"), *rows])


def _varies(name: str, runs: Sequence[ReportRun]) -> bool:
    return len({repr(run.measured.measure.get(name)) for run in runs}) > 1


def budget_section(alike: AlikeSet, views: Sequence[BudgetView], number: int) -> Markup:
    """Show a set at each budget, the first of which is shown until another one is chosen."""
    if not views:
        why = "No run of this part came to its end with an evaluation, so that none is compared."
        return element("p", why)
    choices = [
        element(
            "label",
            element("input", type="radio", name=f"budget-{number}", value=view.budget,
                    checked=index == 0),
            f" {view.budget}",
        )
        for index, view in enumerate(views)
    ]  # fmt: skip
    return join(
        [
            element(
                "fieldset",
                element("legend", "Compare at equal"),
                *choices,
                class_="choice",
                data_shows=f"budget-{number}",
            ),
            *(_view(alike, view, number, is_first=not index) for index, view in enumerate(views)),
        ]
    )


def _view(alike: AlikeSet, view: BudgetView, number: int, *, is_first: bool) -> Markup:
    assert view.amount is not None
    assert alike.metric
    amount = amount_text(view.budget, view.amount)
    spec = intervals(view, alike.metric, amount, is_less_better=falls(alike.metric))
    name = f"{shown_metric(alike.metric)} at equal {view.budget}"
    return element(
        "div",
        element(
            "p",
            "Each run is taken at its last evaluated round, never at its best one, within "
            f"{amount}: {_chosen(view)}. ",
            _tally(view),
        ),
        *(element("p", text, class_="warning") for text in _warnings(view)),
        figure(f"budget-{number}-{view.budget}", name, spec),
        _limit_note(view),
        _table(view, name),
        _left_out(view),
        class_="choosable",
        data_group=f"budget-{number}",
        data_value=view.budget,
        data_first=is_first,
    )


def _chosen(view: BudgetView) -> str:
    """Say why it is this amount."""
    if not view.below:
        return "the smallest that all of them reach"
    told = [f"{g.label} ({amount_text(view.budget, most)})" for g, most in view.below]
    less = ", ".join(told) if len(told) <= MAX_TOLD else _counted(len(told), "group")
    return (
        "the smallest by which each has a value, since one evaluated round of some costs more than "
        f"others spend in all. Less than that was spent by {less}"
    )


def _tally(view: BudgetView) -> str:
    """Count the verdicts, and what chance alone would make of them."""
    kinds = [_kind(each) for each in view.reached if each.difference]
    if not kinds or not view.reference:
        return "There is one group, so that there is nothing to compare it with."
    counts = [(len(list(same)), kind) for kind, same in groupby(sorted(kinds))]
    told = ", ".join(f"{count} {kind}" for count, kind in counts)
    text = f"Against the reference, {view.reference.label}: {told}."
    if view.num_comparisons > 1:
        chance = 0.05 * view.num_comparisons
        text += (
            f" Each interval is a 95 % one of its own: of {view.num_comparisons} differences that "
            f"are none, about {chance:.2g} would still seem to be one."
        )
    return text


def _kind(each: Reached) -> str:
    if not (each.difference and each.difference.mean):
        return "not compared"
    if each.difference.mean.half is None:
        return "of one seed, which is no ground for a verdict"
    return next(kind for kind in _KINDS if each.verdict.startswith(kind))


def _warnings(view: BudgetView) -> list[str]:
    texts = [
        f"{text[0].upper()}{text[1:]}: such groups are not compared." for text in view.warnings
    ]
    if view.budget == "seconds":
        texts.append(
            "Seconds are those of the machine, and of what else it did: two runs beside each other "
            "on one machine slow each other down."
        )
    return texts


def _limit_note(view: BudgetView) -> Markup | None:
    if len(view.reached) <= MAX_ROWS:
        return None
    return element(
        "p", f"The chart shows {MAX_ROWS} groups, those with the best means; the table has all."
    )


def _table(view: BudgetView, name: str) -> Markup:
    header = ["group", "runs", "mean", "± 95 %", "deviation", "round", "to the reference"]
    rows = [
        [
            each.group.label,
            len(each.group.runs),
            *_numbers(each),
            each.rounds,
            element("span", each.verdict, class_=f"verdict {_css(each)}"),
        ]
        for each in view.reached
    ]
    numeric = header[1:5]
    whole = table(name, header, rows, numeric=numeric, is_sortable=True, is_filtered=len(rows) > 20)
    single = [
        [run.row.run, each.group.label, *map(str, run.measured.seeds), number, _number(value)]
        for each in view.reached
        for run, number, value in each.values
    ]
    columns = ["run", "group", "seed", "data_seed", "round", "value"]
    runs = table(f"{name}: each run", columns, single, numeric=columns[2:], is_sortable=True)
    return join([whole, details("Each run", runs)])


def _numbers(each: Reached) -> list[str]:
    mean = each.mean
    if mean is None:
        return ["-"] * 3
    return [_number(mean.mean), _number(mean.half), _number(mean.deviation)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _css(each: Reached) -> str:
    word = _kind(each).partition(" ")[0] if each.difference else "reference"
    return word if word in ("better", "worse") else "open"


def _left_out(view: BudgetView) -> Markup | None:
    if not view.left_out:
        return None
    items = [element("li", f"{group.label}: {why}") for group, why in view.left_out]
    label = f"Left out of this comparison: {_counted(len(items), 'group')}"
    return details(label, element("ul", *items))


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"
