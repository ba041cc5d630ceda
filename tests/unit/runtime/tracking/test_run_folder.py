"""The run folder is one whole record, whatever happens to the processes that write it."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaling_fl.core.errors import UserError
from scaling_fl.runtime.record.journal import JobRecord
from scaling_fl.runtime.storage import StorageError
from scaling_fl.runtime.tracking.captured_output import MAX_OUTPUT_BYTES
from scaling_fl.runtime.tracking.run_folder import RunFolder
from tests.small_disk import fill, small_disk
from tests.tracked_runs import now, record_of, round_event, start

ROOT = Path(__file__).parents[4]


def new_folder(runs: Path, **options: Any) -> RunFolder:
    return RunFolder(runs, **({"uid": "uid-1", "job_name": "job"} | options))


def read(folder: RunFolder, name: str = "run.json") -> Any:
    return json.loads((folder.path / name).read_text())


def test_a_completed_run_has_the_files_of_sacreds_layout(tmp_path: Path) -> None:
    folder = start(new_folder(tmp_path / "runs"))
    folder.log("hello")
    folder.refresh(record_of(3))
    folder.completed_event(now(), {"accuracy": 0.5})
    entry = read(folder)
    assert folder.run_id == "1"
    assert entry["status"] == "COMPLETED"
    assert entry["result"] == {"accuracy": 0.5}
    assert entry["artifacts"] == ["clients.csv", "comm_log.csv"]
    assert read(folder, "config.json") == {"seed": 0, "site_ids": [0, 1]}
    assert (folder.path / "cout.txt").read_text() == "hello\n"
    assert read(folder, "metrics.json")["train.loss"]["steps"] == [1, 2, 3]
    info = read(folder, "info.json")
    assert (info["uid"], info["job_name"], info["last_round"]) == ("uid-1", "job", 3)
    [[name, stored]] = entry["experiment"]["sources"]
    assert (name, (tmp_path / "runs" / stored).read_text()) == (
        "train.py",
        "print('the program')\n",
    )


def test_sacreds_own_events_make_the_same_record(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from scaling_fl.runtime.tracking.run_folder import RunFolder\n"
        "import numpy as np\n"
        "from sacred import Experiment, SETTINGS\n"
        "SETTINGS.CAPTURE_MODE = 'no'\n"
        "ex = Experiment('x', save_git_info=False)\n"
        "ex.add_config(rate=0.5, ids=[0, 1])\n"
        "folder = RunFolder('runs', uid='u', job_name='j')\n"
        "ex.observers.append(folder)\n"
        "@ex.main\n"
        "def main(_run):\n"
        "    folder.open(); folder.log('a line'); open('plot.txt', 'w').write('plot')\n"
        "    _run.add_artifact('plot.txt'); folder.mark('DEGRADED')\n"
        "    return {'accuracy': np.float32(0.25), 'rows': np.arange(2)}\n"
        "ex.run_commandline()\n"
    )
    subprocess.run([sys.executable, "train.py"], cwd=tmp_path, check=True, capture_output=True)
    entry = json.loads((tmp_path / "runs" / "1" / "run.json").read_text())
    assert entry["status"] == "DEGRADED"
    assert entry["result"] == {"accuracy": 0.25, "rows": [0, 1]}
    assert entry["artifacts"] == ["plot.txt"]
    assert entry["experiment"]["sources"][0][0] == "train.py"


def test_unchanged_sources_are_stored_once(tmp_path: Path) -> None:
    for _ in range(3):
        start(new_folder(tmp_path / "runs"))
    assert len(list((tmp_path / "runs" / "_sources").iterdir())) == 1


@pytest.mark.parametrize("mark", [None, "DEGRADED"])
def test_the_final_status_of_a_completed_run_can_be_marked(
    tmp_path: Path, mark: str | None
) -> None:
    folder = start(new_folder(tmp_path / "runs"))
    if mark:
        folder.mark(mark)
    folder.completed_event(now(), None)
    assert read(folder)["status"] == (mark or "COMPLETED")


def test_an_interruption_or_a_failure_is_not_hidden_by_the_mark(tmp_path: Path) -> None:
    interrupted, failed = (start(new_folder(tmp_path / "runs")) for _ in range(2))
    for folder in (interrupted, failed):
        folder.mark("DEGRADED")
    interrupted.interrupted_event(now(), "INTERRUPTED")
    failed.failed_event(now(), ["Traceback", "ValueError: no"])
    assert read(interrupted)["status"] == "INTERRUPTED"
    assert (read(failed)["status"], read(failed)["fail_trace"][1]) == ("FAILED", "ValueError: no")


def test_a_resumed_run_is_the_same_run(tmp_path: Path) -> None:
    first = start(new_folder(tmp_path / "runs"))
    first.log("first attempt")
    first.refresh(record_of(2))
    started = read(first)["start_time"]
    first.failed_event(now(), ["ValueError: no"])

    second = start(new_folder(tmp_path / "runs", run_id=first.run_id), config={"seed": 1})
    second.log("second attempt")
    entry = read(second)
    assert second.run_id == first.run_id
    assert (entry["status"], entry["start_time"]) == ("RUNNING", started)
    assert "fail_trace" not in entry
    assert "stop_time" not in entry
    assert entry["artifacts"] == ["clients.csv", "comm_log.csv"]
    assert (second.path / "cout.txt").read_text() == "first attempt\nsecond attempt\n"
    assert read(second, "metrics.json")["train.loss"]["steps"] == [1, 2]
    second.completed_event(now(), None)
    assert [a["status"] for a in read(second, "info.json")["attempts"]] == ["FAILED", "COMPLETED"]


def test_a_killed_attempt_is_told_from_a_running_one_when_it_is_resumed(tmp_path: Path) -> None:
    first = start(new_folder(tmp_path / "runs"))
    first.heartbeat_event({}, "", now(), None)
    second = start(new_folder(tmp_path / "runs", run_id=first.run_id))
    died, running = read(second, "info.json")["attempts"]
    assert (died["status"], running["status"]) == ("DIED", "RUNNING")
    assert died["stop_time"] >= died["start_time"]


def test_a_deleted_folder_is_made_anew_under_the_same_uid(tmp_path: Path) -> None:
    folder = start(new_folder(tmp_path / "runs", run_id="7"))
    assert folder.run_id == "7"
    assert read(folder, "info.json")["uid"] == "uid-1"


def test_the_folder_of_another_job_is_never_reopened(tmp_path: Path) -> None:
    other = start(new_folder(tmp_path / "runs", uid="another"))
    before = {path: path.read_bytes() for path in other.path.iterdir()}
    folder = start(new_folder(tmp_path / "runs", run_id=other.run_id))
    assert folder.run_id == "2"
    assert {path: path.read_bytes() for path in other.path.iterdir()} == before


def test_runs_that_start_at_once_get_folders_of_their_own(tmp_path: Path) -> None:
    code = (
        "from tests.tracked_runs import *\nfrom pathlib import Path\nimport sys, uuid\n"
        "base = Path(sys.argv[1]); base.mkdir(exist_ok=True)\n"
        "print(start(RunFolder(base / 'runs', uid=uuid.uuid4().hex, job_name='j')).run_id)\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
        )
        for _ in range(3)
    ]
    ids = [process.communicate(timeout=60)[0].decode().strip() for process in processes]
    assert sorted(ids) == ["1", "2", "3"]
    assert not list((tmp_path / "runs").glob(".new-*"))


def test_tables_and_curves_follow_the_record_also_when_it_is_rolled_back(tmp_path: Path) -> None:
    folder = start(new_folder(tmp_path / "runs"))
    record = record_of(4)
    for event in ({"event": "resume", "round": 2}, round_event(3, loss=9.0)):
        folder.refresh(record)
        record.apply(event)
    folder.refresh(record)
    rows = list(csv.DictReader(io.StringIO((folder.path / "clients.csv").read_text())))
    assert [(row["round"], row["client"]) for row in rows[-2:]] == [("3", "0"), ("3", "1")]
    assert [row["loss"] for row in rows] == ["1.0", "1.0", "0.5", "0.5", "9.0", "9.0"]
    assert read(folder, "metrics.json")["train.loss"]["values"] == [1.0, 0.5, 9.0]


def test_the_communication_log_has_a_download_and_an_upload_of_every_client(tmp_path: Path) -> None:
    folder = start(new_folder(tmp_path / "runs"))
    folder.refresh(record_of(1))
    assert (folder.path / "comm_log.csv").read_text() == (
        "federated_round,sender,receiver,amount_of_bytes\n"
        "1,-1,0,100\n1,0,-1,200\n1,-1,1,101\n1,1,-1,201\n"
    )


def test_a_table_rendered_bit_by_bit_equals_one_rendered_at_once(tmp_path: Path) -> None:
    slow, fast = (start(new_folder(tmp_path / name)) for name in ("slow", "fast"))
    for rounds in range(1, 6):
        slow.refresh(record_of(rounds))
    fast.refresh(record_of(5))
    for name in ("clients.csv", "comm_log.csv", "metrics.json"):
        assert (slow.path / name).read_bytes() == (fast.path / name).read_bytes()


def test_the_record_is_whole_after_a_kill_at_any_moment(tmp_path: Path) -> None:
    code = (
        "from tests.tracked_runs import *\nfrom pathlib import Path\nimport sys\n"
        "folder = start(RunFolder(Path(sys.argv[1]), uid='u', job_name='j', run_id='1'))\n"
        "print('started', flush=True)\n"
        "record = record_of(300)\n"
        "while True:\n"
        "    folder.refresh(record); folder.heartbeat_event({}, '', now(), None)\n"
    )
    seed = np.random.default_rng(0)
    for _ in range(3):
        arguments = [sys.executable, "-c", code, str(tmp_path / "runs")]
        with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(seed.uniform(0.05, 0.3))
            os.kill(process.pid, signal.SIGKILL)
        folder = tmp_path / "runs" / "1"
        for name in ("run.json", "config.json", "info.json"):
            json.loads((folder / name).read_text())
        if (folder / "metrics.json").exists():
            assert (
                len(json.loads((folder / "metrics.json").read_text())["train.loss"]["steps"]) == 300
            )
        if (folder / "clients.csv").exists():
            assert (folder / "clients.csv").read_text().count("\n") == 601
    attempts = json.loads((folder / "info.json").read_text())["attempts"]
    assert [attempt["status"] for attempt in attempts] == ["DIED", "DIED", "RUNNING"]


def test_output_is_stored_at_once_and_early_lines_are_kept(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "runs")
    folder.log("before the start")
    start(folder)
    folder.log("after it")
    assert (folder.path / "cout.txt").read_text() == "before the start\nafter it\n"


def test_output_beyond_the_limit_is_replaced_by_one_note(tmp_path: Path) -> None:
    folder = start(new_folder(tmp_path / "runs"))
    for _ in range(12):
        folder.log("x" * (MAX_OUTPUT_BYTES // 10))
    text = (folder.path / "cout.txt").read_text()
    assert len(text) <= MAX_OUTPUT_BYTES + 100
    assert text.count("is not kept") == 1


def test_a_file_of_the_record_cannot_be_overwritten_by_an_artifact(tmp_path: Path) -> None:
    folder = start(new_folder(tmp_path / "runs"))
    (tmp_path / "mine").write_text("{}")
    for name in ("run.json", "../1/config.json", "../../outside"):
        with pytest.raises(ValueError, match="an artifact's name must be"):
            folder.artifact_event(name, str(tmp_path / "mine"))
    folder.artifact_event("plots/mine.txt", str(tmp_path / "mine"))
    assert (folder.path / "plots" / "mine.txt").read_text() == "{}"


def test_a_missing_artifact_is_noted_and_ends_nothing(tmp_path: Path) -> None:
    folder = start(new_folder(tmp_path / "runs"))
    folder.artifact_event("plot.png", str(tmp_path / "missing.png"))
    folder.completed_event(now(), None)
    assert "could not write plot.png to" in (folder.path / "cout.txt").read_text()
    assert list(folder.trouble.missing) == ["plot.png"]
    assert (read(folder)["artifacts"], read(folder)["status"]) == ([], "COMPLETED")


def test_a_record_that_cannot_be_written_for_a_while_is_whole_afterwards(tmp_path: Path) -> None:
    folder = start(new_folder(tmp_path / "runs"))
    (folder.path / ".metrics.json.tmp").mkdir()  # in the way of the new file, as a full disk is
    for rounds in (1, 2, 3):
        folder.refresh(record_of(rounds))
    assert not (folder.path / "metrics.json").exists()
    (folder.path / ".metrics.json.tmp").rmdir()
    folder.refresh(record_of(4))
    assert read(folder, "metrics.json")["train.loss"]["steps"] == [1, 2, 3, 4]
    first, second = (folder.path / "cout.txt").read_text().splitlines()
    assert first.startswith(f"could not write metrics and tables to {folder.path}: ")
    assert second == f"the record of the run in {folder.path} is complete again."


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 1 << 20) as folder:
        yield folder


def journaled(status: str) -> JobRecord:
    """What a journal says of a run of two rounds, which has ended."""
    record = record_of(2)
    record.apply({"event": "end", "status": status, "time": "2026-11-21T09:00:00+00:00"})
    return record


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED"])
def test_a_full_disk_is_told_once_and_how_the_run_ended_is_kept(disk: Path, status: str) -> None:
    folder = start(new_folder(disk / "runs"))
    notes: list[str] = []
    folder.trouble.note = notes.append
    folder.refresh(record_of(1))
    filling = fill(disk)
    for _ in range(3):
        folder.refresh(record_of(2))
    folder.heartbeat_event({}, "", now(), None)
    for number in range(2000):
        folder.log(f"line {number}")
    [note] = notes
    assert note.startswith(f"could not write metrics and tables to {folder.path}: no space is left")
    if status == "COMPLETED":
        folder.completed_event(now(), {"accuracy": 0.5})
    else:
        folder.failed_event(now(), ["no"])
    assert read(folder)["status"] == status
    assert read(folder, "metrics.json")["train.loss"]["steps"] == [1]
    assert list(folder.trouble.missing) == ["metrics and tables"]
    assert "sync_runs.py" in folder.trouble.sentence(folder.path)
    # The journal has all of it, and completes the folder once there is room.
    fill(disk)
    with pytest.raises(UserError, match=r"lacks the newest metrics and tables: no space is left"):
        new_folder(disk / "runs", run_id="1").complete(journaled(status))
    filling.unlink()
    assert new_folder(disk / "runs", run_id="1").complete(journaled(status))
    assert read(folder, "metrics.json")["train.loss"]["steps"] == [1, 2]
    assert (read(folder)["status"], read(folder, "info.json")["last_round"]) == (status, 2)
    assert not new_folder(disk / "runs", run_id="1").complete(journaled(status))
    folder.log("the last line")
    lines = (folder.path / "cout.txt").read_text().splitlines()
    assert lines == [*(f"line {number}" for number in range(2000)), "the last line"]


def test_a_record_that_still_says_running_is_ended_by_the_journal(tmp_path: Path) -> None:
    folder = start(new_folder(tmp_path / "runs"))
    assert new_folder(tmp_path / "runs", run_id="1").complete(journaled("DEGRADED"))
    assert read(folder)["status"] == "DEGRADED"
    assert read(folder)["stop_time"] == "2026-11-21T09:00:00"
    assert [a["status"] for a in read(folder, "info.json")["attempts"]] == ["DEGRADED"]


def test_a_full_disk_at_the_start_is_one_sentence_and_leaves_an_earlier_record(disk: Path) -> None:
    first = start(new_folder(disk / "runs"))
    first.completed_event(now(), None)
    filling = fill(disk)
    before = {path: path.read_bytes() for path in first.path.iterdir()}
    for options in ({"run_id": "1"}, {"uid": "uid-2"}):
        with pytest.raises(StorageError, match=r"could not write the record .*: no space is left"):
            start(new_folder(disk / "runs", **options))
        assert {path: path.read_bytes() for path in first.path.iterdir()} == before
        assert sorted(path.name for path in (disk / "runs").iterdir()) == ["1", "_sources"]
    filling.unlink()
    assert start(new_folder(disk / "runs", run_id="1")).run_id == "1"


def test_no_secret_reaches_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACRED_MONGO_URI", "mongodb://ann:pass%40word1@db.example:1/x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret-1")
    folder = start(
        new_folder(tmp_path / "runs"),
        config={"url": "s3://key:hunter2@host/x", "deep": [{"text": "aws-secret-1"}]},
    )
    folder.log("connecting to mongodb://ann:pass%40word1@db.example:1/x with pass@word1")
    folder.heartbeat_event({"note": "pass@word1"}, "", now(), {"key": "aws-secret-1"})
    folder.failed_event(now(), ["Error: mongodb://ann:pass%40word1@db.example:1/x"])
    for path in (tmp_path / "runs").rglob("*.*"):
        text = path.read_text()
        for secret in ("word1", "aws-secret-1", "hunter2", "ann:"):
            assert secret not in text, (path, secret)
    assert "mongodb://db.example:1/x" in (folder.path / "cout.txt").read_text()


@pytest.mark.parametrize(("flag", "dirty"), [("1", True), ("", False)])
def test_an_image_without_a_repository_names_the_commit_it_was_built_from(
    tmp_path: Path, flag: str, dirty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCALING_FL_COMMIT", "abc123")
    monkeypatch.setenv("SCALING_FL_DIRTY", flag)
    folder = start(new_folder(tmp_path / "runs"))
    repositories = read(folder)["experiment"]["repositories"]
    assert repositories == [{"url": None, "commit": "abc123", "dirty": dirty}]
