"""What a run's console shows is what its journal holds: watching it elsewhere shows the same."""

import io
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest

from scaling_fl.config import read_config
from scaling_fl.core.errors import UserError
from scaling_fl.jobs.job import Job, open_job
from scaling_fl.jobs.keeper import Keeper
from scaling_fl.reporting.console import Console
from scaling_fl.runtime.record import live
from scaling_fl.runtime.record.journal import Journal, JournalTail
from scaling_fl.runtime.record.live import NAME, LiveProgress, read_progress
from scaling_fl.runtime.storage import open_storage
from scaling_fl.runtime.tracking.run_folder import RunFolder
from scaling_fl.runtime.tracking.sources import open_source
from tests.tracked_runs import announce, now, round_event

PARTITION = {"label_names": ["a", "b"], "histograms": [[3, 1]], "entropies": [0.81]}


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.chdir(tmp_path)
    settings = {"task_name": "20newsgroups", "model": "tiny", "job_name": "job"}
    return open_job(read_config(settings))


@pytest.fixture
def folder(job: Job, tmp_path: Path) -> RunFolder:
    return announce(RunFolder(tmp_path / "runs", uid=job.uid, job_name="job"))


def folder_of(job: Job, tmp_path: Path) -> RunFolder:
    """Announce a further start of a job."""
    runs = tmp_path / "runs"
    folder = RunFolder(runs, run_id=job.record.run_id, uid=job.uid, job_name=job.name)
    return announce(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def record(job: Job, event: dict[str, Any]) -> None:
    """Journal as worker 0 does, from a process of its own."""
    with Journal(job.journal.path) as journal:
        journal.append(**{key: value for key, value in event.items() if key != "time"})


def play(keeper: Keeper, job: Job) -> None:
    """Have the workers of a run tell what they do, and worker 0 journal it."""
    keeper.begin("./run-local.sh scripts/train_federated.py with job_name=job")
    keeper.hear({"event": "note", "text": "2 sites on 2 CPU workers"})
    keeper.hear({"event": "stage", "text": "reading 20newsgroups"})
    record(job, {"event": "partition"} | PARTITION)
    record(job, {"event": "resume", "round": 0, "num_rounds": 2})
    keeper.hear({"event": "ready", "round": 0, "num_rounds": 2})
    failures = [{"client": 1, "reason": "its loss is nan"}]
    for event in (round_event(1), round_event(2) | {"failures": failures}):
        record(job, event)
        keeper.hear({"event": "round", "round": event["round"], "num_clients": 2})
        keeper.tick()


def test_watching_shows_what_the_console_showed(
    job: Job, folder: RunFolder, tmp_path: Path
) -> None:
    here, there = io.StringIO(), io.StringIO()
    keeper = Keeper(job, folder, [], Console(here, folder.log))
    play(keeper, job)
    assert keeper.final_status() == "DEGRADED"
    assert keeper.end("DEGRADED", "") is None
    console = Console(there)
    for event in open_source(job.checkpoints_url).read_new():
        console.show(event)
    lines = here.getvalue().splitlines()
    assert lines[:3] == ["2 sites on 2 CPU workers", "reading 20newsgroups", lines[2]]
    assert [line.partition(" |")[0] for line in lines[2:]] == [
        "round 1/2",
        "round 2/2",
        "warning: round 2: client 1 was left out: its loss is nan",
    ]
    assert there.getvalue() == here.getvalue() == (folder.path / "cout.txt").read_text()
    # And the run folder has it all.
    assert (folder.path / "partition.png").exists()
    run = keeper.run({"num_rounds": 9}, "DEGRADED", "")
    assert (run.num_rounds, run.record.last_round, len(run.record.notes)) == (2, 2, 1)
    assert run.facts()["checkpoints"] == "checkpoints/job"
    job.claim.release()


def test_a_second_start_shows_and_records_only_its_own(
    job: Job, folder: RunFolder, tmp_path: Path
) -> None:
    play(Keeper(job, folder, [], Console(io.StringIO())), job)
    job.claim.release()
    again = open_job(read_config({"task_name": "20newsgroups", "job_name": "job"}))
    shown = io.StringIO()
    keeper = Keeper(again, folder_of(again, tmp_path), [], Console(shown))
    keeper.begin("")
    keeper.hear({"event": "ready", "round": 1, "num_rounds": 2})
    record(again, {"event": "resume", "round": 1, "num_rounds": 2})
    keeper.end("INTERRUPTED", "stopped by SIGTERM")
    assert shown.getvalue() == "resuming after round 1 of 2\n"
    assert (keeper.record.attempts, keeper.record.last_round) == (2, 1)
    assert keeper.record.status == "INTERRUPTED"
    again.claim.release()


def test_a_further_start_leaves_the_record_alone_until_its_workers_are_ready(
    job: Job, folder: RunFolder, tmp_path: Path
) -> None:
    first = Keeper(job, folder, [], Console(io.StringIO()))
    play(first, job)
    first.end("COMPLETED", "")
    folder.completed_event(now(), None)
    job.claim.release()
    before = contents(tmp_path)
    for is_accepted in (False, True):
        again = open_job(read_config({"task_name": "20newsgroups", "job_name": "job"}))
        resumed, shown = folder_of(again, tmp_path), io.StringIO()
        keeper = Keeper(again, resumed, [], Console(shown, resumed.log))
        keeper.begin("the same command")
        keeper.hear({"event": "note", "text": "2 sites"})
        keeper.tick()
        resumed.heartbeat_event({}, "", now(), None)
        if is_accepted:
            keeper.hear({"event": "ready", "round": 2, "num_rounds": 3})
        keeper.end("FAILED", "refused")
        resumed.failed_event(now(), ["refused"])
        assert shown.getvalue() == "2 sites\n"
        again.claim.release()
        assert (contents(tmp_path) == before) == (not is_accepted)
    assert keeper.record.notes[-1]["text"] == "2 sites"
    assert (keeper.record.attempts, keeper.record.status) == (2, "FAILED")
    assert (resumed.path / "cout.txt").read_text() == "2 sites\n"


def go_on(settings: dict[str, Any], runs: Path, *, last_round: int) -> tuple[Keeper, str]:
    """Start a job again, have it accepted and do one more round; returns what was shown."""
    job = open_job(read_config(settings))
    folder = RunFolder(runs, run_id=job.record.run_id, uid=job.uid, job_name=job.name)
    shown = io.StringIO()
    keeper = Keeper(job, announce(folder), [], Console(shown, folder.log))
    keeper.begin("the same command")
    keeper.hear({"event": "ready", "round": last_round, "num_rounds": 9})
    record(job, {"event": "resume", "round": last_round, "num_rounds": 9})
    record(job, round_event(last_round + 1))
    assert keeper.end("COMPLETED", "") is None
    job.claim.release()
    return keeper, shown.getvalue()


def steps(keeper: Keeper) -> list[int]:
    return keeper.record.metrics["train.loss"]["steps"]


LOCAL = {"task_name": "20newsgroups", "job_name": "job"}


def save(place: str, number: int) -> None:
    """Let a folder seem to have a checkpoint, which nothing here reads."""
    open_storage(place).write_bytes(f"round-{number:06d}/manifest.json", b"{}")


@pytest.mark.parametrize("loss", ["all", "the start", "a round", "bytes"])
def test_a_journal_that_lost_lines_gets_them_back_from_the_run_folder(
    job: Job, folder: RunFolder, tmp_path: Path, loss: str
) -> None:
    first = Keeper(job, folder, [], Console(io.StringIO()))
    play(first, job)
    first.end("COMPLETED", "")
    folder.config = {"checkpoints_dir": job.checkpoints_url}
    folder.save_json(folder.config, "config.json")
    job.claim.release()
    save(job.checkpoints_url, 2)
    lines = job.journal.path.read_bytes().splitlines(keepends=True)
    keep = {
        "all": lambda line: False,
        "the start": lambda line: b'"start"' not in line,
        "a round": lambda line: b'"round": 1,' not in line,
        "bytes": lambda line: True,
    }[loss]
    data = b"".join(line for line in lines if keep(line))
    if loss == "bytes":
        data = data.replace(b'"round": 1, "m', b'"round": 1, "\xff')
    job.journal.path.write_bytes(data)
    before = (folder.path / "clients.csv").read_text()
    keeper, shown = go_on(LOCAL, tmp_path / "runs", last_round=2)
    assert [path.name for path in (tmp_path / "runs").glob("[0-9]*")] == ["1"]
    assert keeper.record.uid == job.uid
    assert steps(keeper) == [1, 2, 3]
    assert (folder.path / "clients.csv").read_text().startswith(before)
    taken_back = {"all": "s 1 to 2", "the start": None, "a round": " 1", "bytes": " 1"}[loss]
    assert ("the journal had lost round" in shown) == (taken_back is not None)
    if taken_back:
        assert f"lost round{taken_back}, taken back from {folder.path}" in shown
    # And they are in the journal again.
    assert "had lost" not in go_on(LOCAL, tmp_path / "runs", last_round=3)[1]


def test_rounds_that_are_lost_everywhere_are_named(
    job: Job, folder: RunFolder, tmp_path: Path
) -> None:
    play(Keeper(job, folder, [], Console(io.StringIO())), job)
    job.claim.release()
    save(job.checkpoints_url, 5)
    shutil.rmtree(tmp_path / "runs")
    job.journal.path.unlink()
    keeper, shown = go_on(LOCAL, tmp_path / "runs", last_round=5)
    assert "warning: the journal had lost rounds 1 to 5, which the run folder lacks, too" in shown
    assert steps(keeper) == [6]


def test_a_job_comes_to_a_new_machine_with_its_attempts_and_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = f"memory://{uuid.uuid4().hex}/job"
    settings = LOCAL | {"checkpoints_dir": place}
    first, _ = go_on(settings, tmp_path / "runs", last_round=0)
    save(place, 1)
    entry = json.loads((tmp_path / "runs" / "1" / "run.json").read_text())
    shutil.rmtree(tmp_path / "runs")  # the machine is gone, with all but the store
    second, _ = go_on(settings, tmp_path / "runs", last_round=1)
    run = tmp_path / "runs" / "1"
    assert second.record.uid == first.record.uid
    assert steps(second) == [1, 2]
    assert json.loads((run / "run.json").read_text())["start_time"] == entry["start_time"]
    attempts = json.loads((run / "info.json").read_text())["attempts"]
    assert [attempt["status"] for attempt in attempts] == ["COMPLETED", "RUNNING"]
    lines = [line.partition(" |")[0] for line in (run / "cout.txt").read_text().splitlines()]
    assert lines == ["round 1/9", "resuming after round 1 of 9", "round 2/9"]


def test_checkpoints_that_are_gone_stop_the_job(job: Job) -> None:
    event = {"event": "checkpoint", "round": 4, "path": "round-000004", "digest": "d"}
    record(job, {"event": "start", "uid": "u", "job_name": "job"})
    record(job, event)
    job.claim.release()
    with pytest.raises(UserError, match=r"must hold the checkpoints .* round 4, and holds none"):
        open_job(read_config(LOCAL))


def test_what_cannot_be_journaled_is_shown_all_the_same(
    job: Job, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    keeper = Keeper(job, folder, [], Console(shown))
    keeper.begin("")

    def full(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "write", full)
    keeper.hear({"event": "note", "text": "the disk is full"})
    assert "no space" in str(keeper.end("FAILED", "")).lower()
    monkeypatch.undo()
    assert shown.getvalue() == "the disk is full\n"
    job.claim.release()


def test_progress_is_one_small_file_that_does_not_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "WRITE_SECONDS", 0.0)
    journal = tmp_path / "journal.jsonl"
    progress = LiveProgress(journal.with_name(NAME))
    sizes = set()
    for number in range(1, 4):
        for client in range(200):
            for step in (1, 9, 10):
                told = progress.add(round=number, client=client, step=step, num_steps=10, loss=0.5)
                sizes.add((tmp_path / NAME).stat().st_size)
    assert max(sizes) < 1000
    assert (told["round"], told["clients"], told["num_done"]) == (3, [], 200)
    assert JournalTail(journal).read_new() == []
    (tmp_path / NAME).write_text('{"time": "t", "ev')  # it is being written
    assert read_progress(journal) is None


def test_only_the_clients_that_moved_last_are_shown(tmp_path: Path) -> None:
    progress = LiveProgress(None)
    for client in range(30):
        told = progress.add(round=1, client=client, step=1, num_steps=4, loss=0.5)
    assert [row[0] for row in told["clients"]] == list(range(22, 30))
    told = progress.add(round=1, client=3, step=2, num_steps=4, loss=0.25)
    assert [row[0] for row in told["clients"]] == [3, *range(23, 30)]
    assert told["clients"][0] == [3, 2, 4, 0.25]
    told = progress.add(round=2, client=3, step=4, num_steps=4, loss=0.25)
    assert (told["clients"], told["num_done"]) == ([], 1)
