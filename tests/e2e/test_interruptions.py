"""Signals and kills: nothing torn, nothing left running, and the resumed run equals a whole one."""

import os
import signal
import time
from pathlib import Path

import pytest

from scaling_fl.runtime.machines.launch import GRACE_SECONDS
from tests.e2e.commands import (
    PATIENCE_SECONDS,
    TRAIN,
    Command,
    Job,
    Shell,
    arguments,
    federation,
    resume_command,
    wait_for,
)
from tests.e2e.terminals import Terminal

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def start(shell: Shell, corpus: Path, **changes: object) -> tuple[Command, Job]:
    settings = federation(corpus, job_name="job", checkpoints_dir="checkpoints", **changes)
    command = shell.train(*arguments(settings))
    return command, Job(shell.folder / "checkpoints", shell.folder / "runs" / "1")


def start_and_reach(shell: Shell, corpus: Path, *, round_number: int) -> tuple[Command, Job]:
    command, job = start(shell, corpus)
    command.wait_until(lambda: job.last_round >= round_number, f"round {round_number}")
    return command, job


def assert_same(job: Job, whole: Job) -> None:
    job.assert_whole()
    assert job.digest == whole.digest
    assert job.curves == whole.curves
    assert [path.name for path in sorted(job.run.parent.glob("[0-9]*"))] == ["1"]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGHUP, 143, marks=pytest.mark.nightly),
        pytest.param(signal.SIGQUIT, 143, marks=pytest.mark.nightly),
    ],
)
def test_a_stopped_run_is_marked_and_resumes_to_what_it_would_have_been(
    shell: Shell, corpus: Path, whole: Job, number: int, code: int
) -> None:
    command, job = start_and_reach(shell, corpus, round_number=2)
    command.signal(number).end(expect=code)
    assert shell.processes() == []
    assert 2 <= job.last_round < 6
    assert job.status == "INTERRUPTED"
    assert job.events[-1]["status"] == "INTERRUPTED"
    assert "Job job interrupted" in command.out
    assert "Traceback" not in command.out + command.err
    job.assert_whole()
    resume_command(command.out)
    start(shell, corpus)[0].end(expect=0)
    assert job.status == "COMPLETED"
    assert_same(job, whole)


def test_a_closed_terminal_ends_the_run_in_order(shell: Shell, corpus: Path) -> None:
    settings = federation(corpus, job_name="job", checkpoints_dir="checkpoints", num_rounds=5000)
    typed = [*TRAIN, *arguments(settings)]
    terminal = Terminal(typed, shell.folder, shell.environ | {"TERM": "xterm"})
    job = Job(shell.folder / "checkpoints", shell.folder / "runs" / "1")
    wait_for(lambda: job.last_round >= 2, "round 2", PATIENCE_SECONDS)
    terminal.hang_up()
    terminal.end(expect=143)
    assert shell.processes() == []
    assert job.status == "INTERRUPTED"
    assert job.events[-1] == job.events[-1] | {"event": "end", "message": "stopped by SIGHUP"}
    job.assert_whole()


def test_a_second_ctrl_c_ends_at_once(shell: Shell, corpus: Path) -> None:
    command, job = start(shell, corpus, num_rounds=5000)
    command.wait_until(lambda: job.last_round, "round 1")
    # A worker that does not listen, so that the first Ctrl-C alone would wait for it.
    stopped = command.workers()[1]
    os.kill(stopped, signal.SIGSTOP)
    command.signal(signal.SIGINT)
    time.sleep(2)
    assert command.process.poll() is None
    began = time.monotonic()
    command.signal(signal.SIGINT).end(expect=130)
    assert time.monotonic() - began < GRACE_SECONDS
    assert shell.processes() == []
    assert job.status == "INTERRUPTED"


def test_killing_the_parent_leaves_no_worker_and_nothing_to_clean_up(
    shell: Shell, corpus: Path, whole: Job
) -> None:
    command, job = start_and_reach(shell, corpus, round_number=2)
    command.signal(signal.SIGKILL).end(expect=-signal.SIGKILL)
    assert shell.seconds_until_empty() < 5
    start(shell, corpus)[0].end(expect=0)
    assert_same(job, whole)
    assert [a["status"] for a in job.read("info.json")["attempts"]] == ["DIED", "COMPLETED"]


@pytest.mark.parametrize("victim", [0, 1])
def test_killing_a_worker_fails_the_run_with_one_reason_and_it_resumes(
    shell: Shell, corpus: Path, whole: Job, victim: int
) -> None:
    command, job = start_and_reach(shell, corpus, round_number=2)
    os.kill(command.workers()[victim], signal.SIGKILL)
    command.end(expect=1, patience_seconds=30)
    assert shell.processes() == []
    assert command.error.startswith(f"worker {victim} (site id {victim}, process ")
    assert "was ended by SIGKILL" in command.error
    assert job.status == "FAILED"
    assert command.error in "".join(job.read("run.json")["fail_trace"])
    assert job.events[-1] == job.events[-1] | {"status": "FAILED", "message": command.error}
    start(shell, corpus)[0].end(expect=0)
    assert job.status == "COMPLETED"
    assert_same(job, whole)


def test_a_worker_that_is_asked_to_stop_stops_the_run(shell: Shell, corpus: Path) -> None:
    command, job = start(shell, corpus, num_rounds=5000, save_every=5000)
    command.wait_until(lambda: job.last_round, "round 1")
    os.kill(command.workers()[1], signal.SIGTERM)
    command.end(expect=143, patience_seconds=40)
    assert job.status == "INTERRUPTED"
    assert job.last_round < 5000
    job.assert_whole()


def test_a_worker_that_hangs_does_not_hide_why_another_died(shell: Shell, corpus: Path) -> None:
    command, job = start(shell, corpus, num_rounds=5000)
    command.wait_until(lambda: job.last_round, "round 1")
    first, second = command.workers()
    os.kill(second, signal.SIGSTOP)
    os.kill(first, signal.SIGSEGV)
    command.end(expect=1, patience_seconds=40)
    assert command.error.startswith(f"worker 0 (site id 0, process {first}) was ended by SIGSEGV")
    assert shell.processes() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_before_the_first_round_is_marked_too(
    shell: Shell, corpus: Path, number: int
) -> None:
    command, job = start(shell, corpus)
    command.wait_until(lambda: job.run.exists(), "the run folder")
    command.signal(number).end(expect=128 + number)
    assert shell.processes() == []
    assert job.status == "INTERRUPTED"
    assert "Traceback" not in command.out + command.err
