"""Comparisons: intervals as scipy has them, equal budgets by hand, no verdict without ground."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scaling_fl.reporting.comparison import (
    BYTES,
    EPSILON,
    ROUNDS,
    SECONDS,
    MeasuredRun,
    common_budget,
    compare,
    falls,
    mean_of,
    round_within,
    t_quantile,
    unlike,
    value_within,
    verdict,
)


def measured(
    seed: int, values: dict[int, float], cost: float = 10.0, **changes: Any
) -> MeasuredRun:
    spent = {BYTES: {n: cost * n for n in range(1, max(values, default=0) + 1)}}
    given = {"run": f"runs/{seed}", "seeds": (seed,), "values": values, "spent": spent}
    return MeasuredRun(**{**given, **changes})


def test_two_settings_over_three_seeds_by_hand() -> None:
    ours = [measured(seed, {2: value}) for seed, value in ((1, 0.50), (2, 0.60), (3, 0.64))]
    theirs = [measured(seed, {2: value}) for seed, value in ((3, 0.60), (1, 0.48), (2, 0.57))]
    found = compare(ours, theirs, ROUNDS, 2)
    # The differences are 0.02, 0.03 and 0.04: mean 0.03, deviation 0.01, and 4.3027 for 2 degrees.
    assert found.mean
    assert found.mean.mean == pytest.approx(0.03)
    assert found.mean.half == pytest.approx(4.302653 * 0.01 / math.sqrt(3), rel=1e-6)
    assert verdict(found, is_less_better=False) == "better by 0.0300 ± 0.0248"
    assert verdict(found, is_less_better=True) == "worse by 0.0300 ± 0.0248"
    assert verdict(compare(theirs, ours, ROUNDS, 2), is_less_better=True).startswith("better by")


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12))
def test_an_interval_is_that_of_scipy(values: list[float]) -> None:
    found = mean_of(values)
    error = stats.sem(values)
    assert found.deviation == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    if error > 1e-9:
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), error)
        assert found.half is not None
        assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=2, max_size=9))
def test_better_and_worse_are_what_the_paired_test_calls_significant(
    pairs: list[tuple[float, float]],
) -> None:
    ours, theirs = ([measured(seed, {1: pair[side]}) for seed, pair in enumerate(pairs)]
                    for side in (0, 1))  # fmt: skip
    differences = [our - their for our, their in pairs]
    if np.std(differences) < 1e-9:
        return
    p_value = stats.ttest_rel(*zip(*pairs, strict=True)).pvalue
    if abs(p_value - 0.05) > 1e-6:
        text = verdict(compare(ours, theirs, ROUNDS, 1), is_less_better=False)
        assert text.startswith("within noise") == (p_value > 0.05)


@pytest.mark.parametrize("degrees", [1, 2, 3, 10, 100])
def test_the_quantile_is_that_of_student(degrees: int) -> None:
    assert t_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees))


def test_one_seed_has_no_interval_and_no_verdict() -> None:
    found = compare([measured(1, {1: 0.9})], [measured(1, {1: 0.1})], ROUNDS, 1)
    assert verdict(found, is_less_better=False) == "+0.8000; one seed: no interval"
    assert mean_of([0.5]).half is mean_of([0.5]).deviation is None
    assert not mean_of([0.5]).is_apart


def test_equal_values_are_within_noise() -> None:
    alike = [measured(seed, {1: 0.5}) for seed in (1, 2)]
    text = verdict(compare(alike, alike, ROUNDS, 1), is_less_better=False)
    assert text == "within noise: +0.0000 ± 0.0000"


def test_the_budget_is_the_smallest_that_all_reach_and_each_run_stays_within_it() -> None:
    """One pays 10 a round and the other 25: at 60 bytes, that is round 6 against round 2."""
    cheap = measured(1, {2: 0.2, 4: 0.4, 6: 0.6}, cost=10)
    dear = measured(1, {1: 0.3, 2: 0.5, 3: 0.7}, cost=25)
    assert common_budget([cheap, dear], BYTES) == 60
    assert (round_within(cheap, BYTES, 60), round_within(dear, BYTES, 60)) == (6, 2)
    assert (value_within(cheap, BYTES, 59.9), value_within(dear, BYTES, 60)) == (0.4, 0.5)
    assert common_budget([cheap, dear], ROUNDS) == 3
    assert compare([cheap], [dear], ROUNDS, 3).mean == mean_of([0.2 - 0.7])


def test_where_one_round_costs_more_than_all_of_another_run_it_is_the_budget() -> None:
    """Else the dear one would have no value at all; the cheap one has not spent all of it."""
    cheap = measured(1, {1: 0.1, 2: 0.2}, cost=10)
    dear = measured(1, {1: 0.9, 2: 1.0}, cost=100)
    assert common_budget([cheap, dear], BYTES) == 100
    assert (value_within(cheap, BYTES, 100), value_within(dear, BYTES, 100)) == (0.2, 0.9)
    assert value_within(dear, BYTES, 99.9) is None
    text = verdict(compare([dear], [cheap], BYTES, 99.9), is_less_better=False)
    assert text == "not compared: runs/1 has no finite value within the budget"


def test_a_budget_that_one_run_does_not_record_is_none() -> None:
    assert common_budget([measured(1, {1: 0.1}), measured(2, {1: 0.1}, spent={})], BYTES) is None
    assert common_budget([measured(1, {1: 0.1})], EPSILON) is None
    assert common_budget([], ROUNDS) is None
    assert common_budget([measured(1, {})], ROUNDS) is None


@pytest.mark.parametrize(
    ("one", "other", "sentence"),
    [
        ({"task": "agnews"}, {"task": "yelp"}, "the task differs: agnews against yelp"),
        (
            {"test data": "ab"},
            {"test data": None},
            "the test data differs: ab against not recorded",
        ),
        ({"data": None}, {"data": None}, "the data is not recorded"),
    ],
)
def test_runs_that_were_not_measured_alike_are_not_ranked(
    one: dict[str, Any], other: dict[str, Any], sentence: str
) -> None:
    ours = [measured(seed, {1: 0.9}, measure=one) for seed in (1, 2)]
    theirs = [measured(seed, {1: 0.1}, measure=other) for seed in (1, 2)]
    assert unlike([*ours, *theirs]) == [sentence]
    found = compare(ours, theirs, ROUNDS, 1)
    assert verdict(found, is_less_better=False) == f"not compared: {sentence}"


def test_seconds_of_two_machines_are_not_compared_but_their_rounds_are() -> None:
    ours, theirs = (
        [measured(1, {1: value}, spent={SECONDS: {1: 2.0}}, of_budget={SECONDS: {"machine": name}})]
        for value, name in ((0.2, "one"), (0.3, "two"))
    )
    assert compare(ours, theirs, SECONDS, 2.0).why_not == ["the machine differs: one against two"]
    assert compare(ours, theirs, ROUNDS, 1).mean == mean_of([0.2 - 0.3])


def test_other_seeds_are_no_pair_and_a_run_that_diverged_is_not_left_out_in_silence() -> None:
    assert compare([measured(1, {1: 0.1})], [measured(2, {1: 0.1})], ROUNDS, 1).why_not == [
        "they have no seed in common"
    ]
    ours = [measured(1, {1: math.nan}), measured(2, {1: 0.5})]
    theirs = [measured(1, {1: 0.4}), measured(2, {1: 0.4})]
    assert compare(ours, theirs, ROUNDS, 1).why_not == [
        "runs/1 has no finite value within the budget"
    ]
    assert compare(ours[1:], theirs, ROUNDS, 1).seeds == [(2,)]
    assert mean_of([math.nan, 1.0]).half is None


def test_less_is_better_of_what_is_to_fall() -> None:
    assert falls("validation.loss")
    assert falls("validation.perplexity")
    assert not falls("validation.accuracy")
    assert not falls("validation.f1_macro")
