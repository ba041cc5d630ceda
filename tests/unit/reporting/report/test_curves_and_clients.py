"""What is drawn is what was measured: nothing is smoothed, and what is left out is said."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from scaling_fl.reporting.report.clients import summarise
from scaling_fl.reporting.report.curves import (
    MAX_POINTS,
    axes_of,
    drawn_curves,
    metrics_to_draw,
    thin,
)
from scaling_fl.reporting.report.groups import alike_sets, group_runs
from tests.made_up_runs import of, read


@given(st.integers(0, 1000))
def test_thinning_keeps_every_nth_round_and_both_ends(count: int) -> None:
    rounds = list(range(3, 3 + count))
    kept, step = thin(rounds)
    assert set(kept) <= set(rounds)
    assert len(kept) <= MAX_POINTS + 1
    assert kept[:1] == rounds[:1]
    assert kept[-1:] == rounds[-1:]
    assert {b - a for a, b in pairwise(kept[:-1])} <= {step}
    if count <= MAX_POINTS:
        assert (kept, step) == (rounds, 1)


def test_a_line_is_the_mean_of_the_runs_and_its_band_their_extremes(tmp_path: Path) -> None:
    runs = read([of(1, 3), of(2, 3, payload=10)], tmp_path)
    (alike,) = alike_sets(group_runs(runs))
    columns, step = drawn_curves(alike.groups, "validation.accuracy")
    assert step == 1
    assert columns["round"] == [1, 2, 3]
    values = [run.curves["validation.accuracy"][1][1] for run in alike.runs]
    second = {name: column[1] for name, column in columns.items()}
    assert second["mean"] == float(f"{sum(values) / 2:.6g}")
    assert (second["low"], second["high"]) == tuple(float(f"{v:.6g}") for v in sorted(values))
    sent = [run.measured.spent["bytes"][2] for run in alike.runs]
    assert second["bytes"] == float(f"{sum(sent) / 2:.6g}")
    assert axes_of(columns) == ["bytes", "seconds"]
    assert metrics_to_draw(runs)[0] == "validation.accuracy"


def test_only_rounds_that_all_runs_have_are_averaged(tmp_path: Path) -> None:
    runs = read([of(1, 4, eval_every=2), of(2, 4, eval_every=2)], tmp_path)
    (alike,) = alike_sets(group_runs(runs))
    assert drawn_curves(alike.groups, "validation.accuracy")[0]["round"] == [2, 4]
    assert drawn_curves(alike.groups, "train.loss")[0]["round"] == [1, 2, 3, 4]


def test_clients_are_counted_as_the_rounds_have_them(tmp_path: Path) -> None:
    (run,) = read([of(1, 30, failing=5)], tmp_path)
    clients = summarise(run)
    assert [each.client for each in clients] == list(range(20))
    drawn = Counter(row["client"] for row in run.clients)
    left_out = Counter(row["client"] for row in run.failures)
    assert left_out[5] > 0
    for each in clients:
        assert (each.rounds + each.failed, each.failed) == (
            drawn[each.client],
            left_out[each.client],
        )
        assert run.partition
        assert each.num_examples == sum(run.partition["histograms"][each.client])
        rows = [row for row in run.clients if row["client"] == each.client]
        assert each.num_bytes == sum(r["download_bytes"] + r["upload_bytes"] for r in rows)
        counted = [r for r in rows if (r["client"], r["round"]) not in {
            (f["client"], f["round"]) for f in run.failures}]  # fmt: skip
        assert each.last["accuracy"] == counted[-1]["accuracy"]


def test_a_record_that_says_nothing_of_clients_has_none(tmp_path: Path) -> None:
    private = {"privacy": {"noise_multiplier": 1.0, "clip": 1.0}, "weighting": "uniform"}
    (run,) = read([of(1, is_silent=True, epsilon=1.0, **private)], tmp_path)
    assert summarise(run) == []
