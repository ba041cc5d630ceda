"""Watching a run: what it showed so far, what it does now, and how it ended."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scaling_fl.commands.watch import main
from scaling_fl.core.errors import stop_signals
from scaling_fl.runtime.record.journal import Journal
from scaling_fl.runtime.record.live import NAME, LiveProgress
from scaling_fl.runtime.storage import open_storage
from scaling_fl.runtime.storage.claim import Claim
from tests.past_jobs import copy_past_jobs


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in stop_signals()}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def watch(place: str | None = None, *, is_once: bool = False) -> int:
    return main(place, runs_dir=Path("runs"), is_once=is_once)


def begin(*, rounds: int = 1) -> Journal:
    """Start a job as its session and its worker 0 do."""
    journal = Journal("job/journal.jsonl")
    command = "./run-local.sh scripts/train_federated.py with job_name=job"
    journal.append(
        "start", job_name="job", uid="u", run_id="1", host="pc", pid=9, resume_command=command
    )
    journal.append("resume", round=0, num_rounds=4)
    for number in range(1, rounds + 1):
        do_round(journal, number)
    return journal


def do_round(journal: Journal, number: int) -> None:
    metrics = {"train.loss": 1 / number, "bytes.total": 100.0 * number}
    journal.append("round", round=number, metrics=metrics, clients=[{}], digest="d")


def test_the_newest_run_has_ended_and_is_shown_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_past_jobs(tmp_path)
    assert watch() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Job flasc (runs/2) is COMPLETED; started 2026-")
    assert [line.partition(" |")[0] for line in lines[1:3]] == ["round 1/2", "round 2/2"]
    assert lines[3] == "Job flasc completed, 2 of 2 rounds."
    assert any(line.split() == ["run", "runs/2"] for line in lines)
    assert "Job feedback" not in " ".join(lines)
    assert watch("runs/1") == 0
    assert "Job feedback completed, 2 of 2 rounds." in capsys.readouterr().out


def test_a_dead_run_is_said_to_be_dead_with_what_resumes_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    begin()
    LiveProgress(Path("job") / NAME).add(round=2, client=0, step=1, num_steps=9, loss=0.5)
    assert watch("job") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Job job (job) is DEAD; started 20")
    assert lines[0].endswith(" on pc, process 9.")
    assert lines[1].startswith("round 1/4 | train loss 1.0000")
    assert lines[2].startswith(
        "Job job died, 1 of 4 rounds: its process 9 on pc is gone, and its last sign of life was 20"
    )
    assert lines[-1] == "  ./run-local.sh scripts/train_federated.py with job_name=job"
    assert "client 0" not in " ".join(lines)


def meanwhile(action: Callable[[], None]) -> threading.Thread:
    def later() -> None:
        time.sleep(0.4)
        action()

    thread = threading.Thread(target=later)
    thread.start()
    return thread


def test_a_running_run_is_followed_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    journal = begin()
    claim = Claim.acquire(open_storage("job"))
    assert watch("job", is_once=True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "Job job is running, 1 of 4 rounds."
    assert "resume" not in " ".join(lines)

    def go_on() -> None:
        journal.append("note", level="info", text="half")
        do_round(journal, 2)
        time.sleep(0.4)
        do_round(journal, 3)
        journal.append("end", status="INTERRUPTED", message="stopped by SIGTERM")
        claim.release()

    run = meanwhile(go_on)
    assert watch("job") == 0
    run.join()
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" |")[0] for line in lines[1:6]] == [
        "round 1/4",
        "half",
        "round 2/4",
        "round 3/4",
        "Job job interrupted, 3 of 4 rounds: stopped by SIGTERM",
    ]


def test_ctrl_c_ends_the_watching_alone(capsys: pytest.CaptureFixture[str]) -> None:
    begin()
    claim = Claim.acquire(open_storage("job"))
    presser = meanwhile(lambda: os.kill(os.getpid(), signal.SIGINT))
    assert watch("job") == 130
    presser.join()
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.splitlines()[-1].startswith("round 1/4")
    claim.release()


def test_a_watching_that_nobody_reads_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    begin()
    claim = Claim.acquire(open_storage("job"))
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as nobody:
        monkeypatch.setattr("sys.stdout", nobody)
        assert watch("job") == 0
    claim.release()


@pytest.mark.parametrize(
    ("place", "code", "sentence"),
    [
        ("nosuch", 1, "Error: RUN must be a folder that exists"),
        (".", 1, "Error: RUN must be a run folder, a job's folder"),
        (None, 2, "Error: --runs-dir must be a folder of runs"),
    ],
)
def test_what_cannot_be_watched_is_one_sentence(
    capsys: pytest.CaptureFixture[str], place: str | None, code: int, sentence: str
) -> None:
    assert watch(place) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(sentence)
    assert said.err.count("\n") == 1


def test_without_any_run_there_is_nothing_to_watch(capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs").mkdir()
    assert watch() == 2
    assert "--runs-dir must hold a run" in capsys.readouterr().err
