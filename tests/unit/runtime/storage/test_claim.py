import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scaling_fl.core.errors import UserError
from scaling_fl.runtime.storage import RemoteStorage, Storage, StorageError, open_storage
from scaling_fl.runtime.storage.claim import Claim, Owner, Timing, read_owner
from scaling_fl.runtime.storage.processes import place, process_start

QUICK = Timing(heartbeat_seconds=0.2, stale_seconds=1.0, settle_seconds=0.1)

# Claims a storage and holds it until it is killed or its input ends; with "worker" it starts a
# process that inherits the lock and outlives it.
HOLDER = """
import subprocess, sys
from scaling_fl.runtime.storage.claim import Claim, Timing
from scaling_fl.runtime.storage import open_storage
claim = Claim.acquire(open_storage(sys.argv[1]), timing=Timing(0.2, 1.0, 0.1))
worker = None
if "worker" in sys.argv:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    worker = subprocess.Popen(command, pass_fds=[claim.fileno()], stdout=subprocess.DEVNULL)
print(worker.pid if worker else 0, flush=True)
sys.stdin.read()
claim.release()
"""


@contextmanager
def held(
    url: str, *options: str, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Let another process hold the claim; yield it and the pid of its worker."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, url, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the claim was not acquired"
        try:
            yield process, int(line)
        finally:
            process.kill()


def acquire(storage: Storage, patience_seconds: float = 0.0, timing: Timing = QUICK) -> Claim:
    return Claim.acquire(storage, patience_seconds=patience_seconds, timing=timing)


def elsewhere(**changes: Any) -> Owner:
    """An owner on a machine of which this one knows nothing."""
    values = {"host": "node-7", "place": "node-7/boot/1", "pid": 4321, "process_start": "1"}
    values |= {"uid": "other", "started": "2026-01-02T03:04:05+00:00", "heartbeat": time.time()}
    return Owner(**(values | changes))  # type: ignore[arg-type]


def at(moment: float) -> Timing:
    """Stop the clock, so that no claim grows stale while a busy machine is at the test."""
    return replace(QUICK, clock=lambda: moment)


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.servers)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "job")
    return f"{request.getfixturevalue('s3_url')}/job"


def test_a_second_live_run_is_refused_naming_the_first(url: str) -> None:
    with held(url) as (process, _):
        with pytest.raises(UserError) as caught:
            acquire(open_storage(url))
        text = str(caught.value)
        owner = read_owner(open_storage(url))
        assert owner is not None
        assert owner.pid == process.pid
        assert f"host {os.uname().nodename}, process {process.pid}, started {owner.started}" in text
        assert "choose another job_name or checkpoints_dir" in text
        assert "\n" not in text


def test_a_killed_owner_is_taken_over_without_a_word(url: str) -> None:
    with held(url) as (process, _):
        process.kill()
        started = time.monotonic()
        claim = acquire(open_storage(url), patience_seconds=120.0)
        assert time.monotonic() - started < 60
        owner = read_owner(open_storage(url))
        assert owner is not None
        assert owner.pid == os.getpid()
        claim.release()


def test_a_living_worker_of_a_dead_owner_keeps_the_claim(url: str) -> None:
    with held(url, "worker") as (process, worker):
        process.kill()
        process.wait()
        try:
            with pytest.raises(UserError, match="processes that it started are still running"):
                acquire(open_storage(url), patience_seconds=0.3)
        finally:
            os.kill(worker, 9)
        acquire(open_storage(url), patience_seconds=5.0).release()


def test_a_released_claim_is_free_at_once_and_leaves_no_owner(url: str) -> None:
    storage = open_storage(url)
    for _ in range(2):
        claim = acquire(storage)
        assert isinstance(claim.fileno(), int)
        assert read_owner(storage) is not None
        claim.release()
        assert "claim.json" not in storage.names()
        assert claim.fileno() is None
        claim.release()


def test_two_claims_of_one_process_exclude_each_other(url: str) -> None:
    first = acquire(open_storage(url))
    with pytest.raises(UserError):
        acquire(open_storage(url))
    first.release()


def test_releasing_leaves_the_lock_with_a_worker_that_still_runs(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    claim = acquire(storage)
    lock = claim.fileno()
    assert lock is not None
    assert os.get_inheritable(lock)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1, pass_fds=[lock]) as worker:
        claim.release()
        with pytest.raises(UserError):
            acquire(storage)
        worker.kill()
    acquire(storage).release()


def test_waiting_covers_a_run_that_is_just_ending(tmp_path: Path) -> None:
    with held(str(tmp_path)) as (process, _):
        with pytest.raises(UserError):
            acquire(open_storage(tmp_path), patience_seconds=0.2)
        assert process.stdin is not None
        process.stdin.close()
        acquire(open_storage(tmp_path), patience_seconds=10.0).release()


def test_a_lock_file_that_was_removed_claims_nothing(tmp_path: Path) -> None:
    with held(str(tmp_path)), pytest.raises(UserError):
        acquire(open_storage(tmp_path))
    (tmp_path / "claim.lock").unlink()
    claim = acquire(open_storage(tmp_path))
    assert (tmp_path / "claim.lock").exists()
    claim.release()


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"could not claim .* is a file, not a folder"):
        acquire(open_storage(tmp_path / "file" / "job"))
    with pytest.raises(StorageError, match="could not claim"):
        acquire(open_storage("/proc/job"))


def test_a_damaged_owner_file_does_not_block_a_free_lock(tmp_path: Path) -> None:
    (tmp_path / "claim.json").write_text('{"pid": ')
    claim = acquire(open_storage(tmp_path))
    assert json.loads((tmp_path / "claim.json").read_text())["pid"] == os.getpid()
    claim.release()


@pytest.mark.servers
def test_a_live_claim_of_another_machine_is_respected(s3_url: str) -> None:
    storage = open_storage(f"{s3_url}/job")
    owner = elsewhere()
    storage.write_bytes("claim.json", owner.to_bytes())
    with pytest.raises(UserError, match="host node-7, process 4321, started 2026-01-02") as e:
        acquire(storage, timing=at(owner.heartbeat))
    assert "expires 1 s after its last sign of life" in str(e.value)
    assert read_owner(storage) == elsewhere(heartbeat=read_owner(storage).heartbeat)  # type: ignore[union-attr]


@pytest.mark.servers
def test_a_stale_claim_of_another_machine_is_taken_over(s3_url: str) -> None:
    storage = open_storage(f"{s3_url}/job")
    storage.write_bytes("claim.json", elsewhere(heartbeat=100.0).to_bytes())
    late = Timing(heartbeat_seconds=15, stale_seconds=60, settle_seconds=0.1, clock=lambda: 161.0)
    early = Timing(heartbeat_seconds=15, stale_seconds=60, settle_seconds=0.1, clock=lambda: 159.0)
    with pytest.raises(UserError):
        acquire(storage, timing=early)
    claim = acquire(storage, timing=late)
    assert read_owner(storage).pid == os.getpid()  # type: ignore[union-attr]
    claim.release()


@pytest.mark.servers
def test_another_container_with_the_same_host_name_is_not_taken_for_dead(s3_url: str) -> None:
    storage = open_storage(f"{s3_url}/job")
    twin = elsewhere(host=os.uname().nodename, place=f"{place()}9", pid=2**22 + 1)
    storage.write_bytes("claim.json", twin.to_bytes())
    with pytest.raises(UserError):
        acquire(storage, timing=at(twin.heartbeat))


@pytest.mark.servers
def test_a_process_number_given_out_again_is_not_the_owner(s3_url: str) -> None:
    storage = open_storage(f"{s3_url}/job")
    old = elsewhere(place=place(), pid=os.getpid(), process_start="1")
    storage.write_bytes("claim.json", old.to_bytes())
    claim = acquire(storage)
    assert read_owner(storage).process_start != "1"  # type: ignore[union-attr]
    claim.release()


@pytest.mark.servers
@pytest.mark.parametrize("kind", ["s3_url", "gcs_url"])
def test_the_heartbeat_keeps_a_claim_fresh(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = f"{request.getfixturevalue(kind)}/job"
    # A temporary folder of its own hides the lock of this machine, as another machine would.
    with held(url, TMPDIR=str(tmp_path)) as (process, _):
        first = read_owner(open_storage(url))
        assert first is not None

        def beats() -> bool:
            second = read_owner(open_storage(url))
            return second is not None and second.heartbeat > first.heartbeat + 0.3

        wait_until(beats)
        with pytest.raises(UserError, match=f"process {process.pid}"):
            acquire(open_storage(url))
        process.kill()
        process.wait()
        acquire(open_storage(url)).release()


@pytest.mark.servers
def test_an_owner_that_was_taken_over_knows_it_and_leaves_the_new_claim(s3_url: str) -> None:
    storage = open_storage(f"{s3_url}/job")
    claim = acquire(storage)
    assert not claim.lost
    storage.write_bytes("claim.json", elsewhere().to_bytes())
    wait_until(lambda: claim.lost)
    claim.release()
    assert read_owner(storage).uid == "other"  # type: ignore[union-attr]


@pytest.mark.servers
def test_a_claim_that_was_deleted_comes_back(s3_url: str) -> None:
    storage = open_storage(f"{s3_url}/job")
    claim = acquire(storage)
    storage.delete(["claim.json"])
    wait_until(lambda: read_owner(storage) is not None)
    assert not claim.lost
    claim.release()


@pytest.mark.servers
def test_of_two_that_take_over_at_once_one_wins(s3_url: str, tmp_path: Path) -> None:
    url = f"{s3_url}/job"
    open_storage(url).write_bytes("claim.json", elsewhere(heartbeat=0.0).to_bytes())
    # The winner must not seem dead to the others when the machine is busy.
    timing = "patience_seconds=0, timing=Timing(0.2, 30.0, 0.0)"
    code = HOLDER.replace("timing=Timing(0.2, 1.0, 0.1)", timing)
    runs = []
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        runs.append(
            subprocess.Popen(
                [sys.executable, "-c", code, url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=os.environ | {"TMPDIR": str(tmp_path / name)},
            )
        )
    try:
        lines = [run.stdout.readline() for run in runs if run.stdout]
        assert sorted(lines) == ["", "", "0\n"]
    finally:
        for run in runs:
            run.kill()
            run.communicate()


def test_an_object_store_that_is_away_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaling_fl.runtime.storage.remote.RETRY_SECONDS", 0.5)
    storage = RemoteStorage("memory://claims/job")

    def away(*_: Any, **__: Any) -> bytes:
        raise ConnectionRefusedError

    monkeypatch.setattr(storage.fs, "cat_file", away)
    with pytest.raises(StorageError, match="cannot be reached"):
        acquire(storage)
    monkeypatch.undo()
    acquire(storage).release()


def test_a_process_is_told_from_another_of_the_same_number() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert process_start(child.pid) not in (None, process_start(1))
        child.kill()
        wait_until(lambda: process_start(child.pid) is None)  # a zombie is dead
    assert process_start(child.pid) is None


def test_the_owner_file_is_plain_json(tmp_path: Path) -> None:
    claim = acquire(open_storage(tmp_path))
    owner = json.loads((tmp_path / "claim.json").read_text())
    assert owner["pid"] == os.getpid()
    claim.release()


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
