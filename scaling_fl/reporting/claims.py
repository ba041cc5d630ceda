"""Whether runs bear a published claim out: each thing that it says, judged by their seeds.

A claim says that one group of runs gains at least so much over another one, or needs at most such a
share of its bytes. A gain is judged by the 95 % interval of the paired differences: it holds where
the whole interval lies above what was claimed, it does not where the whole interval lies below, and
in between the runs cannot tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from scaling_fl.reporting.comparison import (
    BYTES,
    MeasuredRun,
    common_budget,
    compare,
    falls,
    unlike,
)

OWNED = "owners of the training data"
SPLIT = "split"


class Expectation(BaseModel):
    """One thing that a claim says of two groups of runs."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    says: str
    ours: list[str]
    """Conditions such as ``merge.method=ties``, all of which the runs of this group meet."""
    theirs: list[str]
    gain: float | None = None
    """By how much ours is better at least, in the metric's own unit; below 0: worse at most."""
    traffic: float | None = None
    """Which share of the bytes of theirs ours needs at most, for all its rounds."""
    budget: Literal["rounds", "bytes", "seconds", "epsilon"] = "rounds"
    """At which equal budget a gain is measured."""
    across_splits: bool = False
    """Whether the split, such as the number of clients, is what the claim is about."""

    @model_validator(mode="after")
    def _says_one_thing(self) -> "Expectation":
        if (self.gain is None) == (self.traffic is None):
            raise ValueError("must have gain or traffic, and not both")
        return self


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the runs say of an expectation."""

    expectation: Expectation
    holds: bool | None
    """None: the runs cannot tell."""
    why: str
    """What was measured."""

    @property
    def verdict(self) -> str:
        words = {True: "holds here", False: "does not hold here", None: "cannot be told here"}
        return words[self.holds]


def judge(
    expectation: Expectation,
    ours: Sequence[MeasuredRun],
    theirs: Sequence[MeasuredRun],
    metric: str,
    *,
    ignoring_input: float | None = None,
) -> Judgement:
    """Judge an expectation by two groups of runs that came to their end.

    ``ignoring_input`` is what the metric would be without looking at the input: of two groups that
    have learned nothing, none is better.
    """
    if not ours or not theirs:
        return _open(expectation, "no run of one of the two groups came to its end")
    if expectation.across_splits:
        ours, theirs = ([_without_split(run) for run in runs] for runs in (ours, theirs))
    if expectation.gain is None:
        return _judge_traffic(expectation, ours, theirs)
    is_less_better = falls(metric)
    last = [run.values[max(run.values)] for run in (*ours, *theirs) if run.values]
    if ignoring_input is not None and not any(
        (value < ignoring_input) if is_less_better else (value > ignoring_input) for value in last
    ):
        return _open(expectation, f"no run is better than ignoring the input, {ignoring_input:.4f}")
    return _judge_gain(expectation, ours, theirs, is_less_better=is_less_better)


def _without_split(run: MeasuredRun) -> MeasuredRun:
    measure = {name: v for name, v in run.measure.items() if name not in (SPLIT, OWNED)}
    return replace(run, measure=measure)


def _judge_gain(
    expectation: Expectation,
    ours: Sequence[MeasuredRun],
    theirs: Sequence[MeasuredRun],
    *,
    is_less_better: bool,
) -> Judgement:
    assert expectation.gain is not None
    amount = common_budget([*ours, *theirs], expectation.budget)
    if amount is None:
        return _open(expectation, f"a run does not record its {expectation.budget}")
    difference = compare(ours, theirs, expectation.budget, amount)
    if difference.mean is None:
        return _open(expectation, "; ".join(difference.why_not))
    mean, half = difference.mean.mean, difference.mean.half
    better = -mean if is_less_better else mean
    bound = f"at least {expectation.gain:+.4f} is claimed"
    if half is None:
        return _open(expectation, f"{better:+.4f} of one seed, which has no interval; {bound}")
    holds = None
    if better - half >= expectation.gain:
        holds = True
    elif better + half < expectation.gain:
        holds = False
    why = f"{better:+.4f} ± {half:.4f} of {difference.mean.count} seeds; {bound}"
    return Judgement(expectation=expectation, holds=holds, why=why)


def _judge_traffic(
    expectation: Expectation, ours: Sequence[MeasuredRun], theirs: Sequence[MeasuredRun]
) -> Judgement:
    assert expectation.traffic is not None
    mates = {run.seeds: run for run in theirs}
    pairs = [(run, mates[run.seeds]) for run in ours if run.seeds in mates]
    if reasons := dict.fromkeys(text for pair in pairs for text in unlike(pair, BYTES)):
        return _open(expectation, "; ".join(reasons))
    spent = [[max(run.amounts(BYTES).values(), default=0.0) for run in pair] for pair in pairs]
    if not spent or not all(map(all, spent)):
        return _open(expectation, "they have no seed in common whose runs record their bytes")
    share = sum(mine for mine, _ in spent) / sum(other for _, other in spent)
    why = f"{share:.4f} of the bytes; at most {expectation.traffic:.4f} is claimed"
    return Judgement(expectation=expectation, holds=share <= expectation.traffic, why=why)


def _open(expectation: Expectation, why: str) -> Judgement:
    return Judgement(expectation=expectation, holds=None, why=why)
