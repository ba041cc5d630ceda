"""Runs that a rule ends: the same round on any workers and after any interruption, and beyond."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from harness import Run
from one_process import QuickRun, outcome

from scaling_fl.composition.prediction import predict
from scaling_fl.core.errors import InputError
from scaling_fl.jobs.here import is_complete, run_here
from scaling_fl.reporting.console import Console
from scaling_fl.runtime.record.journal import JournalTail

CHANGES: dict[str, Any] = {"num_rounds": 6, "num_clients": 4, "clients_per_round": 2}
NOISE = {"clip": 1.0, "noise_multiplier": 2.0, "delta": 1e-3}
PRIVATE = {**CHANGES, "weighting": "uniform", "adapter": {"kind": "head"}, "privacy": NOISE}


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> QuickRun:
    """The run that nothing ends but its last round."""
    return QuickRun(tmp_path_factory.mktemp("whole"), shared=corpus, **CHANGES).start_here()


def curve(run: Run, name: str) -> list[float]:
    return run.results()[name][1]


def stop_when(rule: str, whole: QuickRun) -> tuple[dict[str, Any], int]:
    """Choose settings that end the run early; returns them and the round, found by other means."""
    losses, sizes = curve(whole, "validation.loss"), curve(whole, "bytes.total")
    match rule:
        case "target":
            ends = next(n for n, loss in enumerate(losses, start=1) if loss <= losses[2])
            return {"metric": "validation.loss", "target": losses[2]}, ends
        case "patience":
            assert losses[0] - min(losses) < 1.0
            return {"metric": "validation.loss", "patience": 2, "min_gain": 1.0}, 3
        case "training":
            assert curve(whole, "train.accuracy")[1] < 1.0
            return {"metric": "train.accuracy", "patience": 3, "min_gain": 1.0}, 4
    return {"bytes": int(sizes[2] + sizes[3]) // 2}, 3


@pytest.mark.parametrize(
    "rule",
    [
        "patience",
        "bytes",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("target", "training")),
    ],
)
def test_a_rule_ends_a_run_in_the_same_round_wherever_it_runs_and_a_larger_one_goes_on(
    rule: str, whole: QuickRun, corpus: Path, tmp_path: Path
) -> None:
    when, ends = stop_when(rule, whole)
    changes = CHANGES | {"stop_when": when}
    one = QuickRun(tmp_path / "one", shared=corpus, **changes).start_here()
    two = QuickRun(tmp_path / "two", shared=corpus, site_ids=[0, 1], **changes)
    two.start_here(stop_after=max(1, ends - 1))
    assert two.record.stopped_by is None
    two = QuickRun(tmp_path / "two", shared=corpus, site_ids=[0, 0, 1], **changes).start_here()
    for run in (one, two):
        assert run.record.last_round == ends < 6
        name = "patience" if rule == "training" else rule
        assert (run.record.stopped_by or "").startswith(f"stop_when.{name}=")
    assert outcome(two, ends) == outcome(one, ends)
    beyond = QuickRun(tmp_path / "two", shared=corpus, **CHANGES).start_here()
    assert beyond.record.stopped_by is None
    assert outcome(beyond, 6) == outcome(whole, 6)


def test_a_job_that_has_ended_trains_nothing_when_it_is_started_again(
    whole: QuickRun, corpus: Path, tmp_path: Path
) -> None:
    when, ends = stop_when("patience", whole)
    changes = CHANGES | {"stop_when": when}
    once = outcome(QuickRun(tmp_path / "run", shared=corpus, **changes).start_here(), ends)
    again = QuickRun(tmp_path / "run", shared=corpus, site_ids=[0, 1], **changes).start_here()
    assert outcome(again, ends) == once
    events = JournalTail(again.journal).read_new()
    assert [event["event"] for event in events].count("round") == ends
    by = "stop_when.patience=2 (validation.loss has not gained in 2 evaluations)"
    assert again.record.stopped_by == events[-1]["stopped_by"] == by
    said = io.StringIO()
    console = Console(said)
    for event in events:
        console.show(event)
    console.close()
    lines = said.getvalue().splitlines()
    assert f"the run ends after round {ends} by {by}" in lines
    assert lines[-1] == f"nothing is left to do: round {ends} of 6 was the last by {by}"


def test_the_round_that_ends_a_run_is_ended_again_after_a_kill_before_its_checkpoint(
    whole: QuickRun, corpus: Path, tmp_path: Path
) -> None:
    when, ends = stop_when("bytes", whole)
    changes = CHANGES | {"stop_when": when, "save_every": 2, "eval_every": 2}
    run = QuickRun(tmp_path / "run", shared=corpus, **changes).start_here()
    steps, losses = run.results()["validation.loss"]
    assert (steps, losses) == ([2, 3], curve(whole, "validation.loss")[1:3])
    once = outcome(run, ends)
    shutil.rmtree(run.checkpoints / "round-000003")
    assert outcome(QuickRun(run.folder, shared=corpus, **changes).start_here(), ends) == once


def test_the_seconds_of_all_starts_count(whole: QuickRun, corpus: Path, tmp_path: Path) -> None:
    def start(seconds: float) -> QuickRun:
        changes = CHANGES | {"stop_when": {"seconds": seconds}, "site_ids": [0, 1]}
        return QuickRun(tmp_path / "run", shared=corpus, **changes).start_here()

    first = start(1e-6).record
    assert first.last_round == 1
    spent = first.metrics["time.round_seconds"]["values"]
    assert first.stopped_by == f"stop_when.seconds=1e-06 (the rounds took {spent[0]:.1f} s)"
    assert start(spent[0]).record.last_round == 1
    assert start(spent[0] + 1e-6).record.last_round == 2
    beyond = start(1e6)
    assert outcome(beyond, 6) == outcome(whole, 6)
    events = JournalTail(beyond.journal).read_new()
    *_, (budget,) = (event["budgets"] for event in events if event["event"] == "resume")
    so_far = beyond.record.metrics["time.round_seconds"]["values"][:2]
    assert (budget["setting"], budget["most"]) == ("stop_when.seconds=1000000", 1e6)
    assert budget["spent"] == pytest.approx(sum(so_far))


def test_epsilon_is_not_exceeded_and_its_older_name_is_the_same(
    corpus: Path, tmp_path: Path
) -> None:
    def start(name: str, **changes: Any) -> QuickRun:
        return QuickRun(tmp_path / name, shared=corpus, **(PRIVATE | changes)).start_here()

    whole = start("whole")
    epsilons = curve(whole, "privacy.epsilon")
    most = (epsilons[2] + epsilons[3]) / 2
    reason = f"(one more round would make it {epsilons[3]:.4g})"
    ended = start("one", stop_when={"epsilon": most}, site_ids=[0, 1])
    older = start("two", privacy=NOISE | {"max_epsilon": most})
    assert curve(ended, "privacy.epsilon") == curve(older, "privacy.epsilon") == epsilons[:3]
    assert ended.record.stopped_by == f"stop_when.epsilon={most:.15g} {reason}"
    assert older.record.stopped_by == f"privacy.max_epsilon={most:.15g} {reason}"
    beyond = start("one")
    assert curve(beyond, "privacy.epsilon") == epsilons
    assert beyond.record.last_round == 6
    predicted = predict(ended.config, lambda text: None)
    assert (predicted.num_rounds, predicted.epsilon) == (3, epsilons[2])
    assert predicted.ends_by == f"stop_when.epsilon={most:.15g}"


SIZES: dict[str, dict[str, Any]] = {
    "tiers": {"upload": {"codec": "int8"}, "tiers": [{"download": {"density": 0.5}}, {}]},
    "base": {"adapter": {"kind": "lora", "rank": 2}, "merge": {"method": "exact"}},
    "poisson": {"sampling": "poisson", "download": {"density_decay": 0.5}},
}
"""Settings with which every round has other bytes."""


@pytest.mark.parametrize(
    "kind",
    ["base", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("tiers", "poisson"))],
)
def test_the_last_round_within_a_budget_of_bytes_is_known_before(
    kind: str, corpus: Path, tmp_path: Path
) -> None:
    changes = CHANGES | SIZES[kind] | {"num_rounds": 4}
    totals = curve(
        QuickRun(tmp_path / "whole", shared=corpus, **changes).start_here(), "bytes.total"
    )
    for most in (totals[2], totals[2] - 1, totals[3]):
        changes |= {"stop_when": {"bytes": int(most)}}
        run = QuickRun(tmp_path / str(most), shared=corpus, **changes).start_here()
        predicted = predict(run.config, lambda text: None)
        assert curve(run, "bytes.total") == [total for total in totals if total <= most]
        assert predicted.num_rounds == run.record.last_round
        assert predicted.download_bytes == curve(run, "bytes.download")
        assert predicted.ends_by == (None if most == totals[3] else f"stop_when.bytes={most:.0f}")
        assert (run.record.stopped_by is None) == (most == totals[3])


def test_a_budget_below_the_first_round_is_refused_before_anything_is_recorded(
    corpus: Path, tmp_path: Path
) -> None:
    run = QuickRun(tmp_path / "run", shared=corpus, **CHANGES, stop_when={"bytes": 1000})
    with pytest.raises(InputError, match=r"stop_when.bytes must be at least \d+, .*, got 1000; "):
        run.start_here()
    assert [event["event"] for event in JournalTail(run.journal).read_new()] == ["start"]
    with pytest.raises(InputError, match=r"stop_when.bytes must be at least \d+, "):
        predict(run.config, lambda text: None)


def test_a_job_that_a_rule_has_ended_is_complete_for_who_runs_many(
    whole: QuickRun, corpus: Path, tmp_path: Path
) -> None:
    when, ends = stop_when("patience", whole)
    config = QuickRun(tmp_path / "x", shared=corpus, **CHANGES, stop_when=when).config
    assert run_here(config, tmp_path).last_round == ends
    assert is_complete(config, tmp_path)


@pytest.mark.slow
def test_a_rule_ends_real_workers_and_the_state_is_that_of_a_run_without_it(
    whole: QuickRun, corpus: Path, tmp_path: Path
) -> None:
    when, ends = stop_when("bytes", whole)
    run = Run(tmp_path / "run", shared=corpus, **CHANGES, stop_when=when, site_ids=[0, 1]).start()
    assert run.manifest(ends)["digest"] == whole.record.digests[ends]
    told = [event for event in run.events if event["event"] == "round"][-1]
    assert told["stopped_by"] == run.record.stopped_by
    config = json.loads((run.checkpoints / f"round-{ends:06d}" / "config.json").read_text())
    assert config["stop_when"]["bytes"] == when["bytes"]
