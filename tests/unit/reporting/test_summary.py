"""The closing summary says how it ended, what came out, where it is and how to go on."""

from typing import Any

import pytest

from scaling_fl.reporting.summary import duration, how_to_train_further, size, summary


def series(*values: float) -> dict[str, list[Any]]:
    return {"steps": list(range(1, len(values) + 1)), "values": list(values)}


FACTS: dict[str, Any] = {
    "status": "COMPLETED",
    "job_name": "demo",
    "last_round": 3,
    "num_rounds": 3,
    "metrics": {
        "train.loss": series(1.0, 0.5, 0.25),
        "validation.accuracy": series(0.5, 0.8125),
        "validation.f1.comp": series(0.5),
        "bytes.download": series(4e6, 4e6, 4345678),
        "bytes.upload": series(100, 200, 300),
        "bytes.total": series(4000100, 8000300, 12346278),
        "bytes.plain": series(8e6, 8e6, 8e6),
        "time.round_seconds": series(1, 1, 1),
    },
    "run_dir": "runs/3",
    "checkpoints": "s3://bucket/demo",
    "journal": "checkpoints/demo/journal.jsonl",
    "resume_command": "./run-local.sh scripts/train_federated.py with demo",
    "further": "give a larger num_rounds to",
}


def test_a_completed_run_is_summed_up() -> None:
    assert summary(FACTS) == (
        "Job demo completed, 3 of 3 rounds.\n"
        "  validation.accuracy  0.8125\n"
        "  train.loss           0.2500\n"
        "  bytes down           12.3 MB (12,345,678 bytes)\n"
        "  bytes up             600 bytes\n"
        "  bytes in all         12.3 MB (12,346,278 bytes), 51.44% of 24.0 MB as plain fp32\n"
        "  run                  runs/3\n"
        "  checkpoints          s3://bucket/demo\n"
        "  journal              checkpoints/demo/journal.jsonl\n"
        "To train further, give a larger num_rounds to:\n"
        "  ./run-local.sh scripts/train_federated.py with demo"
    )


SCRIPTS = {name: f"./run-local.sh scripts/{name}" for name in
           ("evaluate.py", "merge_adapter.py", "watch.py")}  # fmt: skip


def test_what_can_be_done_next_is_named_where_something_was_saved() -> None:
    text = summary(FACTS, scripts=SCRIPTS, is_saved=True, run_dir="my runs/3")
    assert (
        "  journal              checkpoints/demo/journal.jsonl\n"
        "To evaluate it, to export it as a model, and to see it again:\n"
        "  ./run-local.sh scripts/evaluate.py 'my runs/3'\n"
        "  ./run-local.sh scripts/merge_adapter.py 'my runs/3' --out models/demo\n"
        "  ./run-local.sh scripts/watch.py 'my runs/3'\n"
        "To train further"
    ) in text
    assert "evaluate" not in summary(FACTS, scripts=SCRIPTS, is_saved=False)


def test_the_time_taken_and_the_best_round_are_told() -> None:
    metrics = FACTS["metrics"] | {"validation.accuracy": series(0.5, 0.75, 0.75, 0.625)}
    text = summary(FACTS, metrics=metrics, seconds=72.4)
    assert "  validation.accuracy  0.6250, best 0.7500 in round 2\n" in text
    assert "  time taken           1 min 12 s, 1.0 s a round\n" in text
    assert "best" not in summary(FACTS)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (60, "1 min 0 s"), (3599.6, "1 h 0 min"),
     (7500, "2 h 5 min")],
)  # fmt: skip
def test_a_duration_has_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_run_that_a_rule_has_ended_says_which_and_how_to_go_on() -> None:
    by = "stop_when.patience=2 (validation.loss has not gained in 2 evaluations)"
    further = how_to_train_further({"num_rounds": 9}, 9, by)
    lines = summary(FACTS, num_rounds=9, stopped_by=by, further=further).splitlines()
    assert lines[0] == f"Job demo completed, 3 of 9 rounds, ended by {by}."
    assert lines[-2] == "To train further, give a larger stop_when.patience to:"
    other = how_to_train_further({"num_rounds": 9}, 9, "stop_when.target=0.5 (why)")
    assert other == "give another stop_when.target to"


def test_a_run_that_cannot_go_further_does_not_say_how() -> None:
    assert "To train further" not in summary(FACTS, further=None)


@pytest.mark.parametrize("status", ["FAILED", "INTERRUPTED", "DEAD"])
def test_a_run_whose_last_round_was_not_saved_goes_on_by_the_same_command(status: str) -> None:
    lines = summary(FACTS, status=status).splitlines()
    assert lines[-2:] == ["To resume:", f"  {FACTS['resume_command']}"]


def test_bytes_that_nothing_saves_are_compared_with_nothing() -> None:
    metrics = FACTS["metrics"] | {"bytes.plain": series(4000100, 4000200, 4345978)}
    assert summary(FACTS, metrics=metrics).count("plain fp32") == 0


def test_the_accuracy_of_every_tier_is_told_and_that_of_a_class_is_not() -> None:
    metrics = FACTS["metrics"] | {"validation.accuracy.tier1": series(0.25)}
    text = summary(FACTS, metrics=metrics)
    assert "validation.accuracy.tier1  0.2500" in text
    assert "f1.comp" not in text


def test_facts_can_be_given_as_keywords() -> None:
    assert summary(**FACTS) == summary(FACTS)


def test_last_values_alone_give_the_bytes_of_the_last_round_and_in_all() -> None:
    last = {name: points["values"][-1] for name, points in FACTS["metrics"].items()}
    text = summary(FACTS, metrics=last | {"bytes.total": 12_346_278.0})
    assert "bytes down           4.3 MB (4,345,678 bytes) in the last round" in text
    assert "bytes in all         12.3 MB (12,346,278 bytes)" in text


def test_a_degraded_run_names_the_clients_left_out_with_rounds_and_reasons() -> None:
    failures = [{"round": n, "client": 2, "reason": "its loss is nan"} for n in (1, 3)]
    failures.append({"round": 2, "client": 0, "reason": "its update is not finite"})
    text = summary(FACTS, status="DEGRADED", failures=failures)
    assert text.startswith("Job demo completed, but degraded: clients were left out, 3 of 3 rounds")
    assert "client 2 was left out of rounds 1, 3: its loss is nan" in text
    assert "client 0 was left out of round 2: its update is not finite" in text


def test_many_failures_do_not_bury_the_rest() -> None:
    failures = [{"client": c, "reason": "nan", "round": r} for c in range(50) for r in range(9)]
    text = summary(FACTS, status="DEGRADED", failures=failures)
    assert text.count("was left out of rounds 0, 1, 2, 3, 4 and 4 more: nan") == 10
    assert "and 40 more, see info.json of the run" in text


def test_an_interrupted_run_says_so_and_how_to_resume() -> None:
    text = summary(FACTS, status="INTERRUPTED", last_round=2, message="stopped by signal 15")
    assert text.startswith("Job demo interrupted, 2 of 3 rounds: stopped by signal 15\n")
    assert text.endswith("To resume:\n  ./run-local.sh scripts/train_federated.py with demo")


def test_a_run_without_any_round_is_summed_up_too() -> None:
    text = summary(status="FAILED", message="no data", metrics={}, num_rounds=3, last_round=0)
    assert text == "The run failed, 0 of 3 rounds: no data"


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (1e6, "1.0 MB"), (2.5e9, "2.5 GB")],
)
def test_a_size_is_in_powers_of_ten(num_bytes: float, text: str) -> None:
    assert size(num_bytes) == text


def test_a_client_with_a_name_is_told_by_it() -> None:
    failure = {"client": 3, "round": 2, "reason": "not a number"}
    assert "\n  client 3 was left out of round 2: not a number" in summary(failures=[failure])
    named = summary(failures=[failure | {"name": "North " * 9}])
    assert "\n  client 3 (North North North North North…) was left out of round 2" in named
