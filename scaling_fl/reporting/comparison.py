"""Which of several settings is better, as far as their runs can tell.

Runs that differ in nothing but seeds are a group. Two groups are compared by the differences of the
runs that share their seeds, with the 95 % interval of the mean difference by Student's t; what is
compared is the value of a metric at an equal budget. Runs that were not measured alike are not
compared at all.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ROUNDS, BYTES, SECONDS, EPSILON = "rounds", "bytes", "seconds", "epsilon"
CONFIDENCE = 0.95
WITHHELD = "withheld"
"""In a measure: what the record may not say, so that it is taken to be like any other."""
_FALLING = ("loss", "error", "perplexity", "distance")


@dataclass(frozen=True, kw_only=True)
class MeasuredRun:
    """One run, as it was measured."""

    run: str
    seeds: tuple[Any, ...]
    """The values of its seeds; runs of two groups that share them are a pair."""
    values: Mapping[int, float]
    """Evaluated round -> value of the metric."""
    spent: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """Budget -> round -> what had been spent by its end; rounds count themselves."""
    measure: Mapping[str, Any] = field(default_factory=dict)
    """What the value was measured by and on; None where the record does not say."""
    of_budget: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Budget -> what else must be alike to compare by it, such as the machine for seconds."""

    def amounts(self, budget: str) -> Mapping[int, float]:
        """Return what each evaluated round had spent; empty where the record does not say."""
        if budget == ROUNDS:
            return {number: float(number) for number in self.values}
        known = self.spent.get(budget, {})
        return {number: known[number] for number in self.values if number in known}


@dataclass(frozen=True)
class MeanOfRuns:
    """A mean over runs."""

    mean: float
    count: int
    deviation: float | None
    """The standard deviation of a run, with n - 1; None for one run."""
    half: float | None
    """Half the width of the 95 % interval of the mean; None for one run."""

    @property
    def is_apart(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.half is not None and abs(self.mean) > self.half


def mean_of(values: Sequence[float]) -> MeanOfRuns:
    """Average at least one value; the interval is by Student's t with n - 1 degrees of freedom."""
    mean = statistics.fmean(values)
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return MeanOfRuns(mean, len(values), None, None)
    deviation = statistics.stdev(values)
    half = t_quantile(len(values) - 1) * deviation / math.sqrt(len(values))
    return MeanOfRuns(mean, len(values), deviation, half)


def t_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """Return the quantile of Student's t that a two-sided interval takes."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + confidence) / 2))


def falls(metric: str) -> bool:
    """Say whether less of a metric is better, by its name."""
    return any(word in metric for word in _FALLING)


def common_budget(trials: Iterable[MeasuredRun], budget: str) -> float | None:
    """Return the smallest amount that all runs reach; None where one does not record it.

    Where the first evaluated round of one costs more than another one spends in all, it is that of
    the first round, so that each run has a value within the amount.
    """
    found = [list(trial.amounts(budget).values()) for trial in trials]
    if not found or not all(found):
        return None
    return max(min(map(max, found)), max(map(min, found)))


def round_within(trial: MeasuredRun, budget: str, amount: float) -> int | None:
    """Return the last evaluated round that has spent at most an amount; None: none has."""
    rounds = [number for number, spent in trial.amounts(budget).items() if spent <= amount]
    return max(rounds, default=None)


def value_within(trial: MeasuredRun, budget: str, amount: float) -> float | None:
    """Return the value of that round."""
    number = round_within(trial, budget, amount)
    return None if number is None else trial.values[number]


def unlike(trials: Sequence[MeasuredRun], budget: str | None = None) -> list[str]:
    """Say in which ways runs were not measured alike; empty: they may be compared.

    What a record does not say is not guessed: such runs are not alike either.
    """
    measures = [{**t.measure, **(t.of_budget.get(budget, {}) if budget else {})} for t in trials]
    found = []
    for name in dict.fromkeys(name for measure in measures for name in measure):
        told = [value for measure in measures if (value := measure.get(name)) != WITHHELD]
        values = dict.fromkeys(map(_shown, told))
        if len(values) > 1:
            found.append(f"the {name} differs: {' against '.join(values)}")
        elif len(measures) > 1 and None in told:
            found.append(f"the {name} is not recorded")
    return found


def _shown(value: Any) -> str:
    return "not recorded" if value is None else str(value)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far one group is from another one, at an equal budget."""

    mean: MeanOfRuns | None = None
    """Of ours minus theirs, over the pairs; None: they are not compared."""
    seeds: Sequence[tuple[Any, ...]] = ()
    """The seeds of the pairs."""
    why_not: Sequence[str] = ()
    """Why they are not compared."""


def compare(
    ours: Sequence[MeasuredRun], theirs: Sequence[MeasuredRun], budget: str, amount: float
) -> Difference:
    """Compare two groups pair by pair, each run at its last evaluated round within the amount."""
    mates = {trial.seeds: trial for trial in theirs}
    pairs = [(trial, mates[trial.seeds]) for trial in ours if trial.seeds in mates]
    if not pairs:
        return Difference(why_not=["they have no seed in common"])
    if reasons := dict.fromkeys(text for pair in pairs for text in unlike(pair, budget)):
        return Difference(why_not=list(reasons))
    lacking = [
        f"{trial.run} has no finite value within the budget"
        for pair in pairs
        for trial in pair
        if not math.isfinite(_value(trial, budget, amount))
    ]
    if lacking:
        # To leave such a pair out would compare the seeds that went well.
        return Difference(why_not=lacking)
    differences = [
        _value(our, budget, amount) - _value(their, budget, amount) for our, their in pairs
    ]
    return Difference(mean=mean_of(differences), seeds=[our.seeds for our, _ in pairs])


def _value(trial: MeasuredRun, budget: str, amount: float) -> float:
    found = value_within(trial, budget, amount)
    return math.nan if found is None else found


def verdict(difference: Difference, *, is_less_better: bool, digits: int = 4) -> str:
    """Say in plain words what a difference tells."""
    mean = difference.mean
    if mean is None:
        return f"not compared: {'; '.join(difference.why_not)}"
    signed = f"{mean.mean:+.{digits}f}"
    if mean.half is None:
        return f"{signed}; one seed: no interval"
    if not mean.is_apart:
        return f"within noise: {signed} ± {mean.half:.{digits}f}"
    is_better = (mean.mean < 0) == is_less_better
    size = f"{abs(mean.mean):.{digits}f} ± {mean.half:.{digits}f}"
    return f"{'better' if is_better else 'worse'} by {size}"
