"""What is compared at equal bytes, rounds, seconds and epsilon, by hand."""

import math
from pathlib import Path
from typing import Any

import pytest

from scaling_fl.reporting.comparison import mean_of
from scaling_fl.reporting.report.equal_budget import BudgetView, budget_views
from scaling_fl.reporting.report.groups import alike_sets, group_runs
from tests.made_up_runs import of, read

PRIVATE = {"privacy": {"noise_multiplier": 1.0, "clip": 1.0}, "weighting": "uniform"}


@pytest.fixture
def views_of(tmp_path: Path) -> Any:
    def make(*runs: Any, reference: int = 0) -> dict[str, BudgetView]:
        (alike,) = alike_sets(group_runs(read(runs, tmp_path)))
        return {view.budget: view for view in budget_views(alike, alike.groups[reference])}

    return make


def test_who_pays_half_may_go_twice_as_far(views_of: Any) -> None:
    cheap = [of(seed, 8, payload=50, merge={"method": "ties"}) for seed in (1, 2)]
    dear = [of(seed, 8, payload=100) for seed in (1, 2)]
    views = views_of(*dear, *cheap)
    by_bytes, by_rounds = views["bytes"], views["rounds"]
    assert by_bytes.amount == 8 * 2 * 10 * 50
    assert [each.rounds for each in by_bytes.reached] == ["4", "8"]
    assert by_rounds.amount == 8
    assert [each.rounds for each in by_rounds.reached] == ["8", "8"]
    for view in (by_bytes, by_rounds):
        ours, theirs = view.reached[1], view.reached[0]
        pairs = zip(ours.values, theirs.values, strict=True)
        expected = mean_of([our - their for (_, _, our), (_, _, their) in pairs])
        assert ours.difference.mean == expected
        assert ours.mean == mean_of([value for _, _, value in ours.values])
        assert theirs.verdict == "the reference"


def test_a_group_that_spends_less_than_one_round_of_another_is_named(views_of: Any) -> None:
    views = views_of(of(1, 2, payload=1000), of(1, 2, payload=10, merge={"method": "ties"}))
    view = views["bytes"]
    assert view.amount == 1000 * 2 * 10
    assert [(group.label, most) for group, most in view.below] == [("merge.method=ties", 400)]
    assert [each.rounds for each in view.reached] == ["1", "2"]
    assert views["rounds"].below == []


def test_the_value_is_that_of_the_last_round_within_and_not_the_best(views_of: Any) -> None:
    run = of(1, 6, eval_every=2)
    (each,) = views_of(run)["rounds"].reached
    (found, number, value) = each.values[0]
    assert number == 6
    assert value == found.curves["validation.accuracy"][1][-1]


def test_epsilon_compares_private_runs_alone(views_of: Any) -> None:
    runs = [of(1), of(1, epsilon=2.0, **PRIVATE), of(1, epsilon=1.0, **PRIVATE, learning_rate=0.5)]
    views = views_of(*runs, reference=1)
    view = views["epsilon"]
    assert [why for _, why in view.left_out] == ["it has no privacy"]
    # Four rounds cost 2 sqrt(4) and sqrt(4): within 2, the first has one round and the other four.
    assert view.amount == pytest.approx(2.0)
    assert [each.rounds for each in view.reached] == ["1", "4"]
    assert len(views["bytes"].reached) == 3


def test_epsilon_at_another_delta_is_not_compared(views_of: Any) -> None:
    other = {"privacy": PRIVATE["privacy"] | {"delta": 1e-3}, "weighting": "uniform"}
    views = views_of(of(1, epsilon=1.0, **PRIVATE), of(1, epsilon=1.0, **other))
    reason = "the privacy.delta differs:"
    assert views["epsilon"].warnings == [f"{reason} 1e-05 against 0.001"]
    assert views["epsilon"].reached[1].verdict == f"not compared: {reason} 0.001 against 1e-05"
    assert "not compared" not in views["bytes"].reached[1].verdict


def test_seconds_of_another_number_of_workers_are_not_compared(views_of: Any) -> None:
    views = views_of(of(1), of(1, site_ids=[0, 1], learning_rate=0.5))
    assert views["seconds"].reached[1].verdict == (
        "not compared: the machine differs: made-up, cpu, 2 workers, 1 threads each against "
        "made-up, cpu, 1 worker, 1 threads each"
    )
    assert "one seed: no interval" in views["rounds"].reached[1].verdict


def test_a_group_with_a_run_that_diverged_has_no_mean(views_of: Any) -> None:
    runs = [of(1), of(2), of(1, learning_rate=0.5), of(2, learning_rate=0.5, top=math.nan)]
    ours = views_of(*runs)["rounds"].reached[1]
    assert ours.mean is None
    assert ours.verdict.startswith("not compared: ")
    assert ours.verdict.endswith("has no finite value within the budget")


def test_differences_that_have_an_interval_are_counted(views_of: Any) -> None:
    runs = [of(1), of(2), of(1, learning_rate=0.5), of(2, learning_rate=0.5)]
    assert views_of(*runs, of(1, learning_rate=0.7))["bytes"].num_comparisons == 1
