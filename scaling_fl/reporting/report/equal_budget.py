"""What each group of runs has reached at an equal budget, and how it differs from one of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scaling_fl.reporting.comparison import (
    BYTES,
    EPSILON,
    ROUNDS,
    SECONDS,
    Difference,
    MeanOfRuns,
    common_budget,
    compare,
    falls,
    mean_of,
    round_within,
    unlike,
    value_within,
    verdict,
)
from scaling_fl.reporting.report.data import ReportRun
from scaling_fl.reporting.report.groups import USUAL, AlikeSet, RunGroup

BUDGETS = (BYTES, ROUNDS, SECONDS, EPSILON)


@dataclass(frozen=True, kw_only=True)
class Reached:
    """What a group has reached within the amount."""

    group: RunGroup
    values: Sequence[tuple[ReportRun, int | None, float | None]]
    """Of each run: its last evaluated round within the amount, and the value there."""
    mean: MeanOfRuns | None
    """Over its runs; None where one of them has no value."""
    difference: Difference | None
    """From the reference; None for the reference itself."""
    verdict: str

    @property
    def rounds(self) -> str:
        """Name the rounds that were compared."""
        found = sorted({number for _, number, _ in self.values if number is not None})
        return ", ".join(map(str, found)) or "none"


@dataclass(frozen=True, kw_only=True)
class BudgetView:
    """All groups of a set at one budget."""

    budget: str
    amount: float | None
    """What all runs are compared at, see ``common_budget``."""
    reached: Sequence[Reached]
    reference: RunGroup | None
    left_out: Sequence[tuple[RunGroup, str]]
    """Groups that have no place in it, and why."""
    warnings: Sequence[str]
    below: Sequence[tuple[RunGroup, float]] = ()
    """Groups none of whose runs spends the amount, and the most that one of them spends."""

    @property
    def num_comparisons(self) -> int:
        """Count the differences that have an interval."""
        return sum(
            bool(each.difference and each.difference.mean and each.difference.mean.half is not None)
            for each in self.reached
        )


def budget_views(alike: AlikeSet, reference: RunGroup | None) -> list[BudgetView]:
    """View a set at each budget that its runs record; the first is the default.

    Without a reference, the group of the usual settings is it, or the first one.
    """
    views = [_view(alike, budget, reference) for budget in BUDGETS]
    return [view for view in views if view.reached]


def _view(alike: AlikeSet, budget: str, reference: RunGroup | None) -> BudgetView:
    kept, left_out = [], []
    for group in alike.groups:
        if why := _why_not(group, budget):
            left_out.append((group, why))
        else:
            kept.append(group)
    runs = [run.measured for group in kept for run in group.runs]
    amount = common_budget(runs, budget)
    if amount is None:
        return BudgetView(
            budget=budget,
            amount=None,
            reached=[],
            reference=None,
            left_out=left_out,
            warnings=[],
        )
    usual = next((group for group in kept if group.label == USUAL), kept[0])
    beside = reference if reference in kept else usual
    less = falls(alike.metric or "")
    reached = [_reached(group, beside, budget, amount, is_less_better=less) for group in kept]
    # What is measured otherwise in this view alone: the machine of seconds, the terms of epsilon.
    warnings = [text for text in unlike(runs, budget) if text not in unlike(runs)]
    return BudgetView(
        budget=budget,
        amount=amount,
        reached=reached,
        reference=beside,
        left_out=left_out,
        warnings=warnings,
        below=[(group, most) for group in kept if (most := _most(group, budget)) < amount],
    )


def _most(group: RunGroup, budget: str) -> float:
    return max(max(run.measured.amounts(budget).values()) for run in group.runs)


def _why_not(group: RunGroup, budget: str) -> str:
    if not group.is_ended:
        return f"it did not come to its end ({group.runs[0].row.status})"
    if not all(run.measured.values for run in group.runs):
        return "it was never evaluated"
    if not all(run.measured.amounts(budget) for run in group.runs):
        return (
            "it has no privacy" if budget == EPSILON else f"its record does not tell the {budget}"
        )
    return ""


def _reached(
    group: RunGroup, reference: RunGroup, budget: str, amount: float, *, is_less_better: bool
) -> Reached:
    found = [
        (
            run,
            round_within(run.measured, budget, amount),
            value_within(run.measured, budget, amount),
        )
        for run in group.runs
    ]
    numbers = [value for _, _, value in found if value is not None and math.isfinite(value)]
    mean = mean_of(numbers) if len(numbers) == len(found) else None
    difference = None
    text = "the reference"
    if group is not reference:
        ours, theirs = ([run.measured for run in each.runs] for each in (group, reference))
        difference = compare(ours, theirs, budget, amount)
        text = verdict(difference, is_less_better=is_less_better)
    return Reached(group=group, values=found, mean=mean, difference=difference, verdict=text)
