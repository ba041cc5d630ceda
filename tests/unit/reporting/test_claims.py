"""What runs say of a published claim."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from scaling_fl.reporting.claims import Expectation, judge
from scaling_fl.reporting.comparison import MeasuredRun, mean_of


def expected(**claimed: Any) -> Expectation:
    return Expectation(says="", ours=[], theirs=[], **claimed)


def group(
    values: Sequence[float], *, num_bytes: float = 100.0, **measure: str
) -> list[MeasuredRun]:
    """Return runs of seeds 1, 2, ... that reach these values in round 2."""
    return [
        MeasuredRun(
            run=f"runs/{seed}",
            seeds=(seed,),
            values={1: 0.1, 2: value},
            spent={"bytes": {1: num_bytes / 2, 2: num_bytes}},
            measure={"split": "iid, 2 clients", "owners of the training data": "a"} | measure,
        )
        for seed, value in enumerate(values, start=1)
    ]


THEIRS = group([0.70, 0.72, 0.74])


@pytest.mark.parametrize(
    ("ours", "gain", "holds"),
    [
        ([0.699, 0.719, 0.738], -0.01, True),  # a difference of -0.0013 ± 0.0014
        ([0.699, 0.719, 0.738], 0.0, None),
        ([0.699, 0.719, 0.738], 0.001, False),
        ([0.60, 0.72, 0.84], -0.01, None),  # 0 ± 0.25
    ],
)
def test_a_gain_is_judged_by_the_whole_interval(
    ours: list[float], gain: float, holds: bool | None
) -> None:
    found = judge(expected(gain=gain), group(ours), THEIRS, "validation.accuracy")
    differences = mean_of([a - b for a, b in zip(ours, [0.70, 0.72, 0.74], strict=True)])
    assert differences.half is not None
    assert found.holds is holds
    assert f"{differences.mean:+.4f} ± {differences.half:.4f} of 3 seeds" in found.why


def test_less_of_a_loss_is_a_gain() -> None:
    lower = group([0.5, 0.51, 0.52])
    better = judge(expected(gain=0.1), lower, THEIRS, "validation.loss")
    worse = judge(expected(gain=0.1), lower, THEIRS, "validation.accuracy")
    assert (better.holds, worse.holds) == (True, False)


def test_one_seed_cannot_tell_and_neither_can_no_run() -> None:
    claimed = expected(gain=0.0)
    alone = judge(claimed, group([0.9]), THEIRS[:1], "validation.accuracy")
    none = judge(claimed, [], THEIRS, "validation.accuracy")
    assert (alone.holds, none.holds) == (None, None)
    assert "no interval" in alone.why
    assert "came to its end" in none.why


def test_bytes_are_compared_as_a_share() -> None:
    ours = group([0.7] * 3, num_bytes=30.0)
    for share, holds in ((0.3, True), (0.29, False)):
        found = judge(expected(traffic=share), ours, THEIRS, "validation.accuracy")
        assert found.holds is holds
        assert "0.3000 of the bytes" in found.why


def test_what_was_not_measured_alike_is_judged_across_splits_alone() -> None:
    many = group([0.5, 0.52, 0.54], split="iid, 32 clients")
    many = [
        replace(run, measure=run.measure | {"owners of the training data": "b"}) for run in many
    ]
    claimed = expected(gain=-0.1)
    refused = judge(claimed, many, THEIRS, "validation.accuracy")
    assert refused.holds is None
    assert "the split differs" in refused.why
    across = expected(gain=-0.1, across_splits=True)
    assert judge(across, many, THEIRS, "validation.accuracy").holds is False
    other = [replace(run, measure=run.measure | {"test data": "c"}) for run in many]
    told = judge(across, other, THEIRS, "validation.accuracy")
    assert told.holds is None, "the test data still has to be the same"


def test_of_groups_that_have_learned_nothing_none_is_better() -> None:
    claimed = expected(gain=-0.01)
    for floor, holds in ((0.75, None), (0.5, True)):
        found = judge(claimed, THEIRS, THEIRS, "validation.accuracy", ignoring_input=floor)
        assert found.holds is holds
    nothing = judge(claimed, THEIRS, THEIRS, "validation.loss", ignoring_input=0.6)
    assert nothing.holds is None, "less would be better"


def test_runs_of_other_seeds_need_not_have_the_same_data_for_their_bytes_to_count() -> None:
    ours = group([0.7] * 3, num_bytes=30.0)
    seeds = [
        [replace(run, measure={"training data": str(run.seeds)}) for run in runs]
        for runs in (ours, THEIRS)
    ]
    assert judge(expected(traffic=0.3), *seeds, "validation.accuracy").holds
