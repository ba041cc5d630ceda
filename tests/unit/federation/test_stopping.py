"""Rules that end a run: each a function of what the job has come to."""

import math

import pytest
import torch

from scaling_fl.conformance.workers import on_workers
from scaling_fl.core.exchange import Exchange, SingleExchange
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.stopping import (
    SECONDS,
    Course,
    Stopping,
    count_without_gain,
    keep_to_bytes,
    keep_to_rounds,
    keep_to_seconds,
    reach,
    wait_for_gain,
)

NAN, INF = math.nan, math.inf


def test_patience_ends_a_run_whose_metric_gains_no_more() -> None:
    rule = wait_for_gain("validation.accuracy", 2, 0.0, is_loss=False)
    assert rule(Course(values=[0.5, 0.6, 0.6])) == ""
    assert rule(Course(values=[0.5, 0.6, 0.6, 0.55])) == (
        "validation.accuracy has not gained in 2 evaluations"
    )


@pytest.mark.parametrize(
    ("values", "min_gain", "is_loss", "count"),
    [
        ([], 0.0, False, 0),
        ([0.5], 0.0, False, 0),
        ([0.5, 0.5], 0.0, False, 1),
        ([0.5, 0.4, 0.6], 0.0, False, 0),
        ([0.5, 0.4, 0.6], 0.0, True, 1),
        ([1.0, 0.9, 0.8], 0.15, True, 0),  # small gains add up until they are one
        ([1.0, 0.9, 0.8, 0.79], 0.15, True, 1),
        ([1.0, NAN, INF], 0.0, True, 2),
        ([NAN, NAN, 1.0], 0.0, True, 0),
        ([NAN, NAN, NAN], 0.0, True, 2),
    ],
    ids=str,
)
def test_values_without_gain_are_counted_from_the_last_gain(
    values: list[float], min_gain: float, is_loss: bool, count: int
) -> None:
    assert count_without_gain(values, min_gain, is_loss=is_loss) == count


def test_a_target_is_a_least_score_and_a_largest_loss() -> None:
    score = reach("validation.accuracy", 0.5, is_loss=False)
    loss = reach("validation.loss", 0.5, is_loss=True)
    assert [bool(score(Course(values=[0.9, v]))) for v in (0.4, 0.5, 0.6, NAN)] == [
        False, True, True, False,
    ]  # fmt: skip
    assert [bool(loss(Course(values=[0.1, v]))) for v in (0.4, 0.5, 0.6, NAN, INF)] == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert score(Course()) == loss(Course()) == ""
    assert loss(Course(values=[0.25])) == "validation.loss is 0.2500"


def test_budgets_of_bytes_and_epsilon_are_never_exceeded_and_one_of_seconds_once() -> None:
    for most, ends in ((99, True), (100, False)):
        assert bool(keep_to_bytes(most)(Course(next_bytes=lambda: 100))) == ends
    epsilon = keep_to_rounds(2, lambda num_rounds: num_rounds / 2)
    assert [epsilon(Course(round=n)) for n in (1, 2)] == ["", "one more round would make it 1.5"]
    for seconds, ends in ((9.9, False), (10.0, True)):
        assert bool(keep_to_seconds(10.0)(Course(seconds=seconds))) == ends


def stopping(exchange: Exchange | None = None, patience: int = 2) -> Stopping:
    return Stopping(
        exchange or SingleExchange(1),
        {
            f"patience={patience}": wait_for_gain("validation.loss", patience, 0.0, is_loss=True),
            "seconds=10": keep_to_seconds(10.0),
        },
        metric="validation.loss",
        is_due=lambda number: number % 2 == 0,
    )


def at(round_number: int) -> GlobalState:
    return GlobalState(torch.zeros(1), round=round_number)


def test_earlier_starts_count_and_rounds_that_are_not_due_do_not() -> None:
    """Round 3 was evaluated because it once was the last one."""
    losses = {2: 1.0, 3: 0.1, 4: 1.0, 6: 1.0}
    past = {
        n: {SECONDS: 1.0} | ({"validation.loss": losses[n]} if n in losses else {})
        for n in range(1, 6)
    }
    rules = stopping()
    assert rules.resume(at(5), lambda: past) == ""
    assert rules.after(at(6), {SECONDS: 1.0, "validation.loss": 1.0}) == (
        "patience=2 (validation.loss has not gained in 2 evaluations)"
    )
    rules = stopping()
    assert rules.resume(at(5), lambda: past) == ""
    assert rules.after(at(6), {SECONDS: 5.0, "validation.loss": 0.5}) == (
        "seconds=10 (the rounds took 10.0 s)"
    )


def test_a_job_that_a_rule_has_ended_is_over_when_it_starts_again() -> None:
    past = {n: {SECONDS: 1.0, "validation.loss": 1.0} for n in range(1, 7)}
    assert stopping().resume(at(6), lambda: past).startswith("patience=2 (")
    assert stopping(patience=3).resume(at(6), lambda: past) == ""


def test_a_job_without_rules_reads_no_past() -> None:
    def read() -> dict[int, dict[str, float]]:
        raise AssertionError

    rules = Stopping(SingleExchange(1))
    assert rules.resume(at(6), read) == rules.after(at(7), {SECONDS: 1.0}) == ""


def test_all_workers_end_where_the_first_one_says() -> None:
    def work(exchange: Exchange) -> list[str]:
        rules, told = stopping(exchange), []
        past = {1: {SECONDS: 5.0}} if exchange.rank == 0 else {}
        told.append(rules.resume(at(1), lambda: past))
        # The clocks of the others do not count.
        told.append(rules.after(at(3), {SECONDS: 0.0 if exchange.rank == 0 else 99.0}))
        told.append(rules.after(at(5), {SECONDS: 5.0 if exchange.rank == 0 else 0.0}))
        return told

    one, two = on_workers(2, work)
    assert one == two == ["", "", "seconds=10 (the rounds took 10.0 s)"]
