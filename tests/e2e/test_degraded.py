"""Clients that really diverge: the run says so wherever its end is told."""

from pathlib import Path

import pytest

from tests.e2e.commands import Command, Job, Shell, arguments, federation

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def run(shell: Shell, corpus: Path, **changes: object) -> tuple[Command, Job]:
    """Split so unevenly that client 1 takes one step and all others several, which is too far."""
    split = {"partition.kind": "dirichlet_by_class", "partition.alpha": 0.2}
    split |= {"partition.min_examples": 2}
    steps = {"optimiser": "sgd", "learning_rate": 2000.0, "num_local_epochs": 1, "num_rounds": 1}
    settings = federation(corpus, checkpoints_dir="checkpoints", **split, **steps, **changes)
    command = shell.train(*arguments(settings))
    command.process.wait(60)
    return command, Job(shell.folder / "checkpoints", shell.folder / "runs" / "1")


def test_a_run_that_left_clients_out_is_degraded_and_names_them(shell: Shell, corpus: Path) -> None:
    command, job = run(shell, corpus)
    assert command.process.returncode == 0, command.err
    assert job.status == "DEGRADED"
    assert job.events[-1]["status"] == "DEGRADED"
    assert "completed, but degraded: clients were left out" in command.out
    left_out = {failure["client"] for failure in job.read("info.json")["failures"]}
    assert left_out == {0, 2, 3}
    for client in left_out:
        assert f"client {client} was left out of round 1: its update is not" in command.out


def test_min_clients_makes_it_an_error(shell: Shell, corpus: Path) -> None:
    command, job = run(shell, corpus, min_clients=2)
    assert command.process.returncode == 1
    assert command.error.startswith("min_clients=2 clients must send a usable update, got 1 of 4")
    assert job.status == "FAILED"
    assert job.last_round == 0
