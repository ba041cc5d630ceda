"""A run reads alike from its journal, its folder and the database, and its status is the truth."""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from scaling_fl.core.errors import UserError
from scaling_fl.runtime.record.journal import JOURNAL, Journal, fold
from scaling_fl.runtime.record.live import NAME, LiveProgress
from scaling_fl.runtime.storage import open_storage
from scaling_fl.runtime.storage.claim import OWNER, Claim, Owner
from scaling_fl.runtime.tracking.journals import journal_path
from scaling_fl.runtime.tracking.listing import places_of_runs, read_many
from scaling_fl.runtime.tracking.run_folder import RunFolder
from scaling_fl.runtime.tracking.runs import list_runs
from scaling_fl.runtime.tracking.sources import open_run, open_source
from tests.databases import secantus_server, sync
from tests.past_jobs import copy_past_jobs
from tests.tracked_runs import now, record_of, round_event, start

START = {"event": "start", "uid": "uid-1", "job_name": "job", "run_id": "1", "host": "pc", "pid": 7}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SACRED_MONGO_URI", "SACRED_USER", "SACRED_PASSWORD", "SACRED_HOST"):
        monkeypatch.delenv(name, raising=False)


def write_journal(path: Path, *events: dict[str, Any]) -> None:
    with Journal(path) as journal:
        for event in events:
            journal.append(**{key: value for key, value in event.items() if key != "time"})


def dead_owner() -> Owner:
    """Name a process of this machine that is gone."""
    code = (
        "from scaling_fl.runtime.storage.claim import Owner\n"
        "print(Owner.this_process(9e9).to_bytes().decode())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return Owner(**json.loads(done.stdout))


def make_job(folder: Path, *events: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    write_journal(folder / JOURNAL, START, *events)
    return folder


def test_a_job_reads_as_its_journal_folds(tmp_path: Path) -> None:
    events = [round_event(1), round_event(2), {"event": "end", "status": "DEGRADED"}]
    job = make_job(tmp_path / "checkpoints" / "job", *events)
    for place in (job, f"{job}/", f"file://{job}", job / "round-000002"):
        run = open_run(str(place))
        assert (run.status, run.record.job_name, run.record.last_round) == ("DEGRADED", "job", 2)
        assert (run.checkpoints, run.journal, run.folder) == (str(job), job / JOURNAL, None)
        assert run.record.clients == fold([START, *events]).clients
        assert (run.record.host, run.record.pid) == ("pc", 7)
    assert run.facts()["checkpoints"] == "checkpoints/job"


def test_a_run_is_running_while_it_is_claimed_and_dead_when_nobody_claims_it(
    tmp_path: Path,
) -> None:
    job = make_job(tmp_path / "job", round_event(1))
    assert open_run(str(job)).status == "DEAD"
    claim = Claim.acquire(open_storage(str(job)))
    assert open_run(str(job)).status == "RUNNING"
    source = open_source(str(job))
    source.load()
    assert source.is_running()
    claim.release()
    assert not source.is_running()
    (job / OWNER).write_bytes(dead_owner().to_bytes())
    assert open_run(str(job)).status == "DEAD"
    write_journal(job / JOURNAL, {"event": "end", "status": "INTERRUPTED", "message": "stopped"})
    run = open_run(str(job))
    assert (run.status, run.record.message) == ("INTERRUPTED", "stopped")


def test_a_job_tells_its_news_once_and_the_progress_beside_them(tmp_path: Path) -> None:
    job = make_job(tmp_path / "job")
    source = open_source(str(job))
    assert [event["event"] for event in source.read_new()] == ["start"]
    progress = LiveProgress(job / NAME)
    told = progress.add(round=1, client=3, step=2, num_steps=5, loss=0.5)
    assert source.read_new() == [told]
    assert source.read_new() == []
    write_journal(job / JOURNAL, round_event(1))
    assert [event["event"] for event in source.read_new()] == ["round"]
    progress.clear()
    assert source.read_new() == []
    assert sorted(path.name for path in job.iterdir()) == [JOURNAL]


def test_jobs_of_an_earlier_version_are_read_by_every_name(tmp_path: Path) -> None:
    copy_past_jobs(tmp_path)
    assert list_runs("runs") == ["runs/1", "runs/2"]
    for place in ("runs/2", "checkpoints/flasc", "checkpoints/flasc/round-000002"):
        run = open_run(place)
        assert (run.status, run.record.job_name, run.num_rounds) == ("COMPLETED", "flasc", 2)
        assert run.config["upload"]["density"] < 1
        assert run.record.metrics["train.loss"]["steps"] == [1, 2]
        assert run.folder == Path("runs/2")
    journal = tmp_path / "checkpoints" / "flasc" / JOURNAL
    before = open_run("runs/2").record
    journal.rename(tmp_path / "elsewhere.jsonl")
    alone = open_run("runs/2")
    assert (alone.status, alone.journal) == ("COMPLETED", None)
    for name in ("metrics", "clients", "failures", "checkpoints", "uid", "job_name", "run_id"):
        assert getattr(alone.record, name) == getattr(before, name), name
    assert alone.record.last_digest == before.last_digest


def make_folder(tmp_path: Path, rounds: int = 3) -> RunFolder:
    folder = start(RunFolder(tmp_path / "runs", uid="uid-1", job_name="job"))
    record = record_of(rounds)
    record.apply({"event": "note", "level": "info", "text": "hello"})
    record.stopped_by = "stop_when.bytes=9 (why)"
    folder.refresh(record)
    folder.log("round 1\nround 2")
    return folder


def test_a_folder_without_its_journal_gives_the_lines_of_its_console(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    source = open_source(str(folder.path))
    assert [event["text"] for event in source.read_new()] == ["round 1", "round 2"]
    assert source.is_running()
    folder.log("round 3")
    assert [event["text"] for event in source.read_new()] == ["round 3"]
    folder.completed_event(now(), None)
    assert not source.is_running()
    assert source.read_new() == []


@pytest.mark.parametrize(
    ("hostname", "pid", "seconds", "status"),
    [
        ("elsewhere", 1, 5, "RUNNING"),
        ("elsewhere", 1, 90, "DEAD"),
        (None, 2**22 + 1, 5, "DEAD"),  # on this host, a number that no process has
    ],
)
def test_a_folder_that_says_running_is_not_always_believed(
    tmp_path: Path, hostname: str | None, pid: int, seconds: int, status: str
) -> None:
    path = make_folder(tmp_path).path
    info = json.loads((path / "info.json").read_text())
    info["attempts"][-1] |= {"pid": pid} | ({"hostname": hostname} if hostname else {})
    (path / "info.json").write_text(json.dumps(info))
    heartbeat = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=seconds)
    entry = json.loads((path / "run.json").read_text()) | {"heartbeat": heartbeat.isoformat()}
    (path / "run.json").write_text(json.dumps(entry))
    assert open_run(str(path)).status == status


def test_an_address_is_read_by_the_copy_of_its_journal(tmp_path: Path) -> None:
    url = f"memory://{uuid.uuid4().hex}/job"
    storage = open_storage(url)
    journal = tmp_path / "elsewhere.jsonl"
    write_journal(journal, START, round_event(1))
    storage.put(journal, JOURNAL)
    source = open_source(f"{url}/round-000001")
    assert [event["event"] for event in source.read_new()] == ["start", "round"]
    write_journal(journal, round_event(2))
    storage.put(journal, JOURNAL)
    assert [event["round"] for event in source.read_new()] == [2]
    # The copy is older than the end of the run, of which only the claim tells.
    assert source.load().status == "ENDED"
    claim = Claim.acquire(storage)
    assert source.load().status == "RUNNING"
    claim.release()
    storage.write_bytes(OWNER, dead_owner().to_bytes())
    run = source.load()
    assert (run.status, run.record.last_round, run.journal) == ("DEAD", 2, None)


def test_on_the_machine_of_a_run_its_own_journal_is_preferred_to_the_copy(tmp_path: Path) -> None:
    url = f"memory://{uuid.uuid4().hex}/job"
    storage = open_storage(url)
    path = journal_path(storage, Path("runs"))
    write_journal(path, START, round_event(1))
    storage.put(path, JOURNAL)
    write_journal(path, round_event(2), {"event": "end", "status": "COMPLETED"})
    run = open_run(url)
    assert (run.status, run.record.last_round, run.journal) == ("COMPLETED", 2, path)
    storage.write_bytes(JOURNAL, b'{"event": "start", "job_name": "gone on elsewhere"}\n')
    assert open_run(url).record.job_name == "gone on elsewhere"


def test_what_is_no_run_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place, sentence in (
        ("nosuch", "RUN must be a folder that exists or an address"),
        ("empty", "which has no journal.jsonl; check the path."),
        ("mongo:x", "RUN must be mongo: and a number, got mongo:x"),
        ("mongo:1", "a run mongo:ID needs a database, got none"),
        (f"memory://{uuid.uuid4().hex}/job", "which has no journal.jsonl"),
    ):
        with pytest.raises(UserError, match=sentence):
            open_run(place)
    with pytest.raises(UserError, match="must be a folder of runs"):
        list_runs("nosuch")


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with secantus_server(tmp_path) as server, server.client() as client:
        monkeypatch.setenv("SACRED_MONGO_URI", server.uri)
        yield client["sacred"]


@pytest.mark.servers
def test_a_run_in_the_database_reads_as_its_folder(tmp_path: Path, database: Any) -> None:
    folder = make_folder(tmp_path)
    number = sync(folder.path, database)
    assert list_runs("mongo:") == [f"mongo:{number}"]
    there, here = open_run(f"mongo:{number}"), open_run(str(folder.path))
    assert there.status == here.status == "RUNNING"
    assert there.config == here.config
    assert there.record.stopped_by == "stop_when.bytes=9 (why)"
    for name in ("clients", "failures", "notes", "uid", "job_name", "digests", "pid", "host"):
        assert getattr(there.record, name) == getattr(here.record, name), name
    for name, series in here.record.metrics.items():
        assert there.record.metrics[name]["values"] == series["values"]
        assert there.record.metrics[name]["steps"] == series["steps"]
    source = open_source(f"mongo:{number}")
    assert [event["text"] for event in source.read_new()] == ["round 1", "round 2"]
    folder.log("x" * 999_990)  # more than the database keeps of the output
    folder.log("the last line")
    folder.completed_event(now(), None)
    sync(folder.path, database)
    assert not source.is_running()
    assert source.read_new()[-1]["text"] == "the last line"
    assert source.read_new() == []
    with pytest.raises(UserError, match=f"mongo:{number + 1} must be a run of mongodb://"):
        open_run(f"mongo:{number + 1}")


@pytest.mark.servers
def test_many_runs_of_the_database_read_as_each_alone(tmp_path: Path, database: Any) -> None:
    numbers = []
    for number in (1, 2):
        folder = start(RunFolder(tmp_path / "runs", uid=f"uid-{number}", job_name=f"job-{number}"))
        folder.refresh(record_of(number))
        folder.completed_event(now(), None)
        numbers.append(sync(folder.path, database))
    places = places_of_runs("mongo:")
    assert places == [f"mongo:{number}" for number in numbers]
    left_out: list[str] = []
    alone = [open_run(place) for place in places]
    wanted = [*places, f"mongo:{numbers[-1] + 1}"]
    for with_clients in (False, True):
        runs = list(
            read_many(
                wanted, with_clients=with_clients, left_out=lambda place, _: left_out.append(place)
            )
        )
        for run, single in zip(runs, alone, strict=True):
            assert (run.where, run.status, run.config) == (
                single.where,
                single.status,
                single.config,
            )
            assert run.record.metrics == single.record.metrics
            assert run.record.clients == (single.record.clients if with_clients else [])
    assert left_out == [wanted[-1]] * 2
