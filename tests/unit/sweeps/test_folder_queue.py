"""What only a queue in a folder or an object store has to withstand."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scaling_fl.runtime.storage import RemoteStorage, StorageError
from scaling_fl.runtime.storage.claim import Timing
from scaling_fl.sweeps.entry import Entry
from scaling_fl.sweeps.folder_queue import FolderQueue
from tests.servers import Server, moto_server
from tests.small_disk import fill, small_disk

ROOT = Path(__file__).parents[3]
RUN = Entry(key=f"{1:064x}", job_name="rates-1", label="seed=1", words=("demo", "seed=1"))
QUICK = Timing(heartbeat_seconds=0.2, stale_seconds=1.0, settle_seconds=0.1)

# Takes the run, and gives it back when it is told to.
HOLD = """
import sys
from scaling_fl.runtime.storage.claim import Timing
from scaling_fl.sweeps.folder_queue import FolderQueue
lease = FolderQueue(sys.argv[1], "rates", timing=Timing(0.2, 1.0, 0.1)).take()
print(lease.begin(0), flush=True)
sys.stdin.readline()
lease.release()
print(lease.is_lost, flush=True)
"""


# The process that tests has its own, because the lock of a run on this machine goes by its address.
BUCKET = f"s3://bucket/sweeps-{os.getpid()}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with moto_server() as started:
        for name, value in started.environment.items():
            monkeypatch.setenv(name, value)
        RemoteStorage("s3://bucket").fs.mkdir("bucket")
        yield started


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.usefixtures("server")
def test_a_worker_whose_machine_stood_still_leaves_alone_what_another_made_of_its_run(
    tmp_path: Path,
) -> None:
    queue = FolderQueue(BUCKET, "rates", timing=QUICK)
    queue.add([RUN])
    command = [sys.executable, "-c", HOLD, BUCKET]
    # A temporary folder of its own hides the lock of this machine, as another machine would.
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=environment) as other:
        try:
            assert other.stdout
            assert other.stdout.readline() == "True\n"
            assert queue.take() is None, "its worker lives"
            other.send_signal(signal.SIGSTOP)
            time.sleep(2 * QUICK.stale_seconds)
            lease = queue.take()
            assert lease
            assert lease.begin(0)
            lease.end("done")
            other.send_signal(signal.SIGCONT)
            assert other.communicate("\n", timeout=60)[0] == "True\n"
        finally:
            other.kill()
    (found,) = queue.entries()
    assert (found.outcome, found.starts) == ("done", 2)


@pytest.mark.slow
@pytest.mark.servers
def test_a_store_that_is_away_does_not_end_what_is_being_trained(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = FolderQueue(BUCKET, "rates")
    queue.add([RUN])
    lease = queue.take()
    assert lease
    assert lease.begin(0)
    monkeypatch.setattr("scaling_fl.runtime.storage.remote.RETRY_SECONDS", 0.5)
    server.process.kill()
    server.process.wait()
    assert not lease.is_pruned
    assert not lease.is_lost
    with pytest.raises(StorageError, match="cannot be reached"):
        lease.end("done")


def test_a_full_disk_harms_no_run(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 18) as disk:
        queue = FolderQueue(str(disk), "rates")
        queue.add([RUN])
        lease = queue.take()
        assert lease
        assert lease.begin(0)
        filling = fill(disk)
        with pytest.raises(StorageError, match="no space is left"):
            lease.end("done")
        (found,) = queue.entries()
        assert (found.outcome, found.starts, found.words) == ("waiting", 1, RUN.words)
        filling.unlink()
        lease = queue.take()
        assert lease
        assert lease.begin(0)
        lease.end("done")
        assert [each.outcome for each in queue.entries()] == ["done"]
