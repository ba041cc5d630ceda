"""A database that is away, slow, or gone for good never holds up a run, and loses nothing."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from scaling_fl.commands.sync import main
from scaling_fl.runtime.tracking import follower as follower_module
from scaling_fl.runtime.tracking.follower import LONGEST_BACKOFF_SECONDS, Follower
from scaling_fl.runtime.tracking.mongo_settings import SERVER_SELECTION_SECONDS, MongoSettings
from scaling_fl.runtime.tracking.mongo_tracker import MongoTracker
from scaling_fl.runtime.tracking.run_folder import RunFolder
from tests.databases import PASSWORD, SecantusServer, check_delivered, secantus_server, the_run
from tests.tracked_runs import now, record_of, start

pytestmark = pytest.mark.servers
ROOT = Path(__file__).parents[4]
SACRED_RUN = """
import sys, time
from sacred import Experiment, SETTINGS
from scaling_fl.runtime.tracking.follower import Follower
from scaling_fl.runtime.tracking.mongo_settings import MongoSettings
from scaling_fl.runtime.tracking.mongo_tracker import MongoTracker
from scaling_fl.runtime.tracking.run_folder import RunFolder
from tests.tracked_runs import record_of

SETTINGS.CAPTURE_MODE = "no"
ex = Experiment("scaling_fl", save_git_info=False)
folder = RunFolder("runs", uid="uid-1", job_name="job")
follower = Follower(folder, MongoTracker(MongoSettings(sys.argv[1], "sacred")))
ex.observers += [follower, folder]

@ex.main
def main():
    folder.open(); follower.start()
    folder.refresh(record_of(3)); follower.poke()
    print("half", flush=True)
    sys.stdin.readline()
    for rounds in range(4, 8):
        folder.refresh(record_of(rounds)); follower.poke(); time.sleep(0.2)
    folder.mark("DEGRADED")
    print("done", time.time(), flush=True)

ex.run()
"""


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look and try again sooner than a run does."""
    monkeypatch.setattr(follower_module, "PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(follower_module, "POLL_SECONDS", 0.5)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SecantusServer]:
    with secantus_server(tmp_path, started=False) as stopped:
        yield stopped


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return start(RunFolder(tmp_path / "runs", uid="uid-1", job_name="job"))


def wait_until(condition: Callable[[], object], *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def follow(folder: RunFolder, server: SecantusServer) -> tuple[Follower, list[str]]:
    notes: list[str] = []
    follower = Follower(
        folder, MongoTracker(MongoSettings(server.uri, "sacred")), note=notes.append
    )
    follower.start()
    return follower, notes


def finish(folder: RunFolder, follower: Follower) -> float:
    """End a run as Sacred does; return the seconds that the follower took for it."""
    folder.completed_event(now(), None)
    began = time.monotonic()
    follower.join()
    return time.monotonic() - began


class Result(NamedTuple):
    code: int
    out: str
    err: str


Sync = Callable[..., Result]


@pytest.fixture
def sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Sync:
    """What scripts/sync_runs.py does once its options are read, on the runs of this test."""

    def run(uri: str, *, again: bool = False, runs_dir: str = "runs") -> Result:
        monkeypatch.setenv("SACRED_MONGO_URI", uri)
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        code = main(Path(runs_dir), again=again)
        return Result(code, *capsys.readouterr())

    return run


def check(server: SecantusServer, folder: RunFolder) -> None:
    with server.client() as client:
        check_delivered(client["sacred"], folder)


def test_a_database_that_is_down_at_the_start_gets_everything_later(
    server: SecantusServer, folder: RunFolder
) -> None:
    follower, notes = follow(folder, server)
    folder.refresh(record_of(3))
    follower.poke()
    wait_until(lambda: notes)
    time.sleep(1)  # further failures are not reported again
    server.start()
    wait_until(lambda: len(notes) > 1)
    finish(folder, follower)
    check(server, folder)
    away, back = notes
    assert f"mongodb://{server.host}/sacred cannot be reached; the run goes on" in away
    assert back.endswith("is back and up to date.")


@pytest.mark.slow
def test_a_database_killed_in_the_middle_loses_and_doubles_nothing(
    server: SecantusServer, folder: RunFolder
) -> None:
    server.start()
    follower, notes = follow(folder, server)
    seconds = []
    for rounds in range(1, 31):
        began = time.monotonic()
        folder.refresh(record_of(rounds))
        follower.poke()
        seconds.append(time.monotonic() - began)
        if rounds == 8:
            server.stop()
        if rounds == 25:
            wait_until(lambda: notes)
            server.start()
        time.sleep(0.05)
    wait_until(lambda: len(notes) == 2)
    assert [f"mongodb://{server.host}/sacred" in note for note in notes] == [True, True]
    finish(folder, follower)
    check(server, folder)
    # To wait for the database once takes more. A busy machine is slow now and then, not so often.
    assert statistics.median(seconds[8:25]) < SERVER_SELECTION_SECONDS / 2


@pytest.mark.slow
def test_what_a_database_that_never_came_back_missed_is_delivered_by_the_script(
    server: SecantusServer, folder: RunFolder, tmp_path: Path, sync: Sync
) -> None:
    server.start()
    follower, notes = follow(folder, server)
    folder.refresh(record_of(2))
    follower.poke()
    wait_until(lambda: (folder.path / "mirror.json").exists())
    server.stop()
    folder.refresh(record_of(5))
    assert finish(folder, follower) < LONGEST_BACKOFF_SECONDS
    assert f"scripts/sync_runs.py --runs-dir {tmp_path / 'runs'}` delivers the rest" in notes[-1]

    away = sync(server.uri)
    assert (away.code, away.out) == (1, "")
    [sentence] = away.err.splitlines()
    assert sentence.endswith("cannot be reached; nothing is lost, try again later.")
    server.start()
    target = f"mongodb://{server.host}/sacred"
    first, second = sync(server.uri), sync(server.uri)
    assert (first.code, first.out) == (0, f"run 1: delivered to {target} as run 1\n")
    assert (second.code, second.out) == (0, "run 1: already delivered\n")
    check(server, folder)


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [False, True])
def test_a_sacred_run_ends_in_time_whether_or_not_the_database_answers(
    server: SecantusServer, tmp_path: Path, sync: Sync, frozen: bool
) -> None:
    server.start()
    (tmp_path / "train.py").write_text(SACRED_RUN)
    with subprocess.Popen(
        [sys.executable, "train.py", server.uri],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdin
        assert process.stdout.readline() == "half\n"
        wait_until((tmp_path / "runs" / "1" / "mirror.json").exists)
        if frozen:
            server.freeze()
        output, errors = process.communicate("go on\n", timeout=60)
    ended = time.time()
    assert process.returncode == 0, errors
    done, text = output.partition("done ")[2].partition("\n")[::2]
    assert ended - float(done) < LONGEST_BACKOFF_SECONDS
    assert ("scripts/sync_runs.py" in text) == frozen
    if frozen:
        server.thaw()
        assert sync(server.uri, again=True).code == 0
    folder = RunFolder(tmp_path / "runs", uid="uid-1", job_name="job")
    folder.dir, folder.run_entry = str(tmp_path / "runs" / "1"), {"artifacts": ["clients.csv"]}
    folder.run_entry["artifacts"].append("comm_log.csv")
    with server.client() as client:
        check_delivered(client["sacred"], folder)
        assert the_run(client["sacred"])["status"] == "DEGRADED"


def test_a_password_opens_the_database_and_shows_nowhere(tmp_path: Path, sync: Sync) -> None:
    folder = start(RunFolder(tmp_path / "runs", uid="uid-1", job_name="job"))
    folder.refresh(record_of(2))
    with secantus_server(tmp_path, auth=True) as server:
        follower, notes = follow(folder, server)
        finish(folder, follower)
        check(server, folder)
        assert not notes
        wrong = server.uri.replace("ann:", "ann:wrong-")
        follower = Follower(folder, MongoTracker(MongoSettings(wrong, "sacred")))
        follower.start()
        wait_until(lambda: "refuses the user" in (folder.path / "cout.txt").read_text())
        follower.close()
        refused = sync(wrong, again=True)
        assert refused.code == 1
        assert "refuses the user or the password" in refused.err
    texts = [path.read_text() for path in folder.path.iterdir()]
    for text in [*texts, refused.out, refused.err]:
        assert "ann:" not in text
        assert PASSWORD not in text
        assert "wrong-" not in text


@pytest.mark.parametrize(
    ("uri", "runs_dir", "sentence"),
    [
        ("", "runs", "no database and no MLflow server is named"),
        ("mongodb://u:p/s3cret@h/", "runs", "must be percent-encoded"),
        ("mongodb://127.0.0.1:1", "nothing", "must be a folder of runs"),
        ("mongodb://127.0.0.1:99999", "runs", "cannot be used"),
    ],
)
def test_misuse_is_told_from_an_outage(
    tmp_path: Path, sync: Sync, uri: str, runs_dir: str, sentence: str
) -> None:
    (tmp_path / "runs").mkdir()
    result = sync(uri, runs_dir=runs_dir)
    assert result.code == 2
    assert sentence in result.err
    assert "s3cret" not in result.err


def test_the_script_passes_over_a_folder_that_is_no_run(tmp_path: Path) -> None:
    start(RunFolder(tmp_path / "runs", uid="uid-1", job_name="job"))
    (tmp_path / "runs" / "7").mkdir()
    (tmp_path / "runs" / "8").mkdir()
    (tmp_path / "runs" / "8" / "info.json").write_text('{"uid": "but no run"}')
    with secantus_server(tmp_path) as server:
        result = subprocess.run(
            [sys.executable, ROOT / "scripts" / "sync_runs.py", "--runs-dir", "runs"],
            cwd=tmp_path,
            env=os.environ | {"SACRED_MONGO_URI": server.uri},
            capture_output=True,
            text=True,
            check=False,
        )
    lines = result.stdout.splitlines()
    assert result.returncode == 1
    assert lines[0].startswith("run 1: delivered")
    assert lines[1].startswith("run 7: passed over")
    assert lines[2].startswith("run 8: cannot be delivered (FileNotFoundError")
