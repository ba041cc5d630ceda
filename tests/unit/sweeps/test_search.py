"""Points that Optuna chooses, and runs that it ends early."""

import math
from collections.abc import Callable
from statistics import mean

import pytest
from pydantic import ValidationError

from scaling_fl.sweeps.search import NUM_RANDOM, Point, Trial, is_hopeless, next_point
from scaling_fl.sweeps.search_settings import SearchSettings, num_points

RATES = SearchSettings.model_validate(
    {"ranges": {"learning_rate": {"low": 1e-4, "high": 1.0, "log": True}}, "trials": 20}
)


def search_for(settings: SearchSettings, loss: Callable[[Point], float]) -> list[Trial]:
    trials: list[Trial] = []
    while len(trials) < settings.trials:
        point = next_point(settings, trials, is_less_better=True)
        trials.append(Trial(point=point, outcome="done", values={1: loss(point)}))
    return trials


def distance(point: Point) -> float:
    """Return how many orders of magnitude a learning rate is from 0.01."""
    return abs(math.log10(float(point["learning_rate"])) + 2)


def test_a_search_ends_nearer_to_the_best_than_chance_does() -> None:
    drawn, chosen = [], []
    for seed in range(4):
        settings = RATES.model_copy(update={"seed": seed})
        found = [distance(trial.point) for trial in search_for(settings, distance)]
        drawn += found[:NUM_RANDOM]
        chosen += found[NUM_RANDOM:]
        assert min(found) < 0.2
    assert mean(chosen) < 0.7 * mean(drawn)


def test_a_point_follows_from_the_trials_before_it_alone() -> None:
    trials = search_for(RATES, distance)
    for number in (0, 3, 12):
        point = next_point(RATES, trials[:number], is_less_better=True)
        assert point == trials[number].point
    other = RATES.model_copy(update={"seed": 2})
    assert next_point(other, [], is_less_better=True) != trials[0].point


def test_points_of_running_trials_are_not_chosen_again() -> None:
    ended = search_for(RATES.model_copy(update={"trials": 8}), distance)
    first = next_point(RATES, ended, is_less_better=True)
    running = [*ended, Trial(point=first, outcome="running")]
    assert next_point(RATES, running, is_less_better=True) != first


def test_values_of_any_kind_keep_it() -> None:
    ranges = {
        "num_local_steps": {"low": 1, "high": 8},
        "momentum": {"low": 0.0, "high": 0.9},
        "merge.method": ["mean", "ties"],
        "length_grouped": [True, False],
    }
    settings = SearchSettings.model_validate({"ranges": ranges, "trials": 8})
    points = [trial.point for trial in search_for(settings, lambda point: 1.0)]
    assert {type(point["num_local_steps"]) for point in points} == {int}
    assert {type(point["momentum"]) for point in points} == {float}
    assert {point["merge.method"] for point in points} == {"mean", "ties"}
    assert {type(point["length_grouped"]) for point in points} == {bool}


@pytest.mark.parametrize(("value", "is_pruned"), [(0.2, True), (0.9, False)])
def test_a_run_below_the_median_of_the_same_round_is_pruned(value: float, is_pruned: bool) -> None:
    settings = RATES.model_copy(update={"prune": True})
    ended = [
        Trial(point={"learning_rate": 0.01}, outcome="done", values={1: 0.5, 2: last})
        for last in (0.55, 0.6, 0.65, 0.7, 0.75)
    ]
    late = Trial(point={"learning_rate": 0.1}, outcome="running", values={1: 0.5, 2: value})
    assert is_hopeless(settings, [*ended, late], 5, is_less_better=False) is is_pruned
    few = [*ended[1:], late]
    assert not is_hopeless(settings, few, 4, is_less_better=False), "too few have ended"
    assert not is_hopeless(RATES, [*ended, late], 5, is_less_better=False), "nobody has asked"


def test_runs_that_failed_count_and_are_not_learned_from() -> None:
    failed = [Trial(point={"learning_rate": 0.5}, outcome="failed")] * 3
    pruned = Trial(point={"learning_rate": 0.3}, outcome="pruned", values={1: 2.0})
    assert next_point(RATES, [*failed, pruned], is_less_better=True) != {"learning_rate": 0.5}


@pytest.mark.parametrize(
    ("ranges", "rule"),
    [
        ({}, "at least 1"),
        ({"learning_rate": {"low": 1.0, "high": 0.1}}, "low below high"),
        ({"learning_rate": {"low": 0, "high": 1, "log": True}}, "low above 0"),
    ],
)
def test_ranges_that_hold_nothing_are_refused(ranges: object, rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        SearchSettings.model_validate({"ranges": ranges, "trials": 3})


def test_the_points_of_lists_and_whole_numbers_are_counted() -> None:
    ranges = {"merge.method": ["mean", "ties"], "num_local_steps": {"low": 1, "high": 8}}
    settings = SearchSettings.model_validate({"ranges": ranges, "trials": 20})
    assert num_points(settings) == 16
    assert num_points(RATES) == math.inf
