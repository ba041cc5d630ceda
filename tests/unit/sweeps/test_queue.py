"""The laws of a queue, wherever it is kept."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from scaling_fl.sweeps.entry import MAX_DEATHS, MAX_FAILURES, Entry
from scaling_fl.sweeps.folder_queue import FolderQueue
from scaling_fl.sweeps.mongo_queue import LeaseTiming, MongoQueue
from scaling_fl.sweeps.queue import Lease, Queue
from tests.databases import SecantusServer, secantus_server

Open = Callable[[], Queue]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecantusServer]:
    with secantus_server(tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture(params=["folder", "database"])
def open_queue(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Open:
    if request.param == "folder":
        return lambda: FolderQueue(str(tmp_path), "rates")
    server: SecantusServer = request.getfixturevalue("server")
    monkeypatch.setenv("SACRED_MONGO_URI", f"{server.uri}{tmp_path.name}")
    return lambda: MongoQueue("rates", say=print, timing=LeaseTiming(heartbeat_seconds=0.1))


def entry(number: int) -> Entry:
    return Entry(
        key=f"{number:064x}",
        job_name=f"rates-{number}",
        label=f"seed={number}",
        words=("demo", f"seed={number}"),
    )


def begin(queue: Queue) -> Lease:
    lease = queue.take()
    assert lease
    assert lease.begin(0)
    return lease


def outcomes(queue: Queue) -> list[str]:
    return [each.outcome for each in queue.entries()]


def test_runs_are_taken_in_order_and_each_once(open_queue: Open) -> None:
    queue, other = open_queue(), open_queue()
    assert queue.add([entry(3), entry(1)]) == 2
    assert other.add([entry(1), entry(2)]) == 1, "one that is there stays as it is"
    leases = [each.take() for each in (queue, other, queue, other)]
    assert [lease and lease.entry for lease in leases] == [entry(3), entry(1), entry(2), None]
    for lease in leases[:2]:
        assert lease
        lease.begin(0)
        lease.end("done", run="runs/1")
    assert outcomes(queue) == ["done", "done", "waiting"], "what nobody has begun waits"
    assert queue.take({entry(3).key}) is None, "a run that is over is not taken"


def test_what_is_being_trained_is_running(open_queue: Open) -> None:
    queue = open_queue()
    queue.add([entry(1)])
    lease = begin(queue)
    (found,) = open_queue().entries()
    assert (found.outcome, found.starts) == ("running", 1)
    assert found.worker.endswith(f":{os.getpid()}")
    lease.release()
    assert outcomes(queue) == ["waiting"]
    assert queue.take({entry(1).key}), "an interrupted run is taken again"


def test_a_final_failure_has_no_more_tries(open_queue: Open) -> None:
    queue = open_queue()
    queue.add([entry(1)])
    begin(queue).end("failed", error="no such setting", is_final=True)
    assert outcomes(queue) == ["failed"]
    assert queue.take() is None
    queue.retry(entry(1).key)
    assert outcomes(queue) == ["waiting"]


def test_a_run_that_fails_has_two_more_tries(open_queue: Open) -> None:
    queue = open_queue()
    queue.add([entry(1)])
    for number in range(1, MAX_FAILURES + 1):
        lease = begin(queue)
        lease.end("failed", error="the disk is full")
        assert outcomes(queue) == ["waiting" if number < MAX_FAILURES else "failed"]
    (found,) = queue.entries()
    assert (found.failures, found.error) == (MAX_FAILURES, "the disk is full")
    assert queue.take() is None
    queue.retry(entry(1).key)
    assert queue.take(), "it waits again when a user wants it to"


def test_only_a_run_that_failed_or_was_pruned_is_retried(open_queue: Open) -> None:
    """Two machines may ask for it, and the run be trained, or done, before the second one does."""
    queue = open_queue()
    queue.add([entry(1)])
    lease = begin(queue)
    open_queue().retry(entry(1).key)
    assert outcomes(queue) == ["running"]
    lease.end("done")
    open_queue().retry(entry(1).key)
    assert outcomes(queue) == ["done"]


def test_interruptions_are_no_failures(open_queue: Open) -> None:
    queue = open_queue()
    queue.add([entry(1)])
    for _ in range(2 * MAX_DEATHS):
        lease = begin(queue)
        lease.release()
    assert outcomes(queue) == ["waiting"]


def test_a_pruned_run_is_told_so_and_never_taken_again(open_queue: Open) -> None:
    queue = open_queue()
    queue.add([entry(1), entry(2)])
    lease = begin(queue)
    assert not lease.is_pruned
    open_queue().prune(entry(1).key)
    open_queue().prune(entry(2).key)
    wait_until(lambda: lease.is_pruned)
    lease.end("pruned")
    assert queue.take() is None
    assert outcomes(queue) == ["pruned", "pruned"]


TAKE = """
import os, sys, time
sys.path.insert(0, {root!r})
from scaling_fl.sweeps.folder_queue import FolderQueue
from scaling_fl.sweeps.mongo_queue import MongoQueue
database = os.environ.get("SACRED_MONGO_URI")
queue = MongoQueue("rates", say=print) if database else FolderQueue({place!r}, "rates")
while lease := queue.take():
    assert lease.begin({round})
    print(lease.entry.job_name, flush=True)
    time.sleep({seconds})
    lease.end("done")
"""


def taker(tmp_path: Path, *, seconds: float, last_round: int = 0) -> "subprocess.Popen[str]":
    root = str(Path(__file__).parents[3])
    code = TAKE.format(root=root, place=str(tmp_path), seconds=seconds, round=last_round)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def wait_until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_processes_share_the_runs_and_take_over_from_one_that_dies(
    open_queue: Open, tmp_path: Path
) -> None:
    queue = open_queue()
    queue.add([entry(number) for number in range(1, 25)])
    first = taker(tmp_path, seconds=60)
    assert first.stdout
    taken = first.stdout.readline().strip()
    assert taken == "rates-1"
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stdout.close()
    assert outcomes(queue)[0] == "waiting", "its worker is dead"
    others = [taker(tmp_path, seconds=0.01) for _ in range(3)]
    printed = [other.communicate(timeout=60)[0].split() for other in others]
    ran = [name for names in printed for name in names]
    assert sorted(ran) == sorted(f"rates-{number}" for number in range(1, 25))
    assert outcomes(queue) == ["done"] * 24
    assert queue.entries()[0].starts == 2


def test_a_run_that_kills_its_worker_again_and_again_has_failed(
    open_queue: Open, tmp_path: Path
) -> None:
    queue = open_queue()
    queue.add([replace(entry(1), round=0)])
    for last_round in (1, 1, 1):  # the first of them has finished a round
        process = taker(tmp_path, seconds=60, last_round=last_round)
        assert process.stdout
        assert process.stdout.readline()
        process.kill()
        process.wait()
        process.stdout.close()
    lease = queue.take()
    assert lease
    assert not lease.begin(1)
    (found,) = queue.entries()
    assert found.outcome == "failed"
    assert f"died {MAX_DEATHS} times with no round finished" in found.error


@pytest.mark.slow
def test_workers_wait_for_a_server_that_is_away_and_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with secantus_server(tmp_path) as server:
        monkeypatch.setenv("SACRED_MONGO_URI", server.uri)
        said: list[str] = []
        queue = MongoQueue("rates", say=said.append)
        queue.add([entry(number) for number in range(1, 25)])
        workers = [taker(tmp_path, seconds=0.1) for _ in range(2)]
        wait_until(lambda: outcomes(queue).count("done") >= 4)
        server.stop()
        with ThreadPoolExecutor(1) as pool:
            listed = pool.submit(queue.entries)
            wait_until(lambda: bool(said))
            server.start()
            assert len(listed.result(timeout=30)) == 24
        printed = [worker.communicate(timeout=120)[0].splitlines() for worker in workers]
        assert outcomes(queue) == ["done"] * 24
    ran = [line for lines in printed for line in lines if line.startswith("rates-")]
    assert sorted(ran) == sorted(f"rates-{number}" for number in range(1, 25)), "none is doubled"
    assert "cannot be reached; waiting for it" in said[0]


@pytest.mark.slow
def test_a_worker_that_is_silent_for_long_loses_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with secantus_server(tmp_path) as server:
        monkeypatch.setenv("SACRED_MONGO_URI", server.uri)
        queue = MongoQueue("rates", say=print, timing=LeaseTiming(0.1, 1.0, watch_seconds=0.5))
        queue.add([entry(1)])
        first = taker(tmp_path, seconds=60)
        assert first.stdout
        assert first.stdout.readline()
        first.send_signal(signal.SIGSTOP)
        assert queue.take() is None, "its worker may be alive"
        wait_until(lambda: outcomes(queue) == ["waiting"])
        lease = begin(queue)
        assert lease.entry.starts == 2
        first.send_signal(signal.SIGCONT)
        first.kill()
        first.wait()
        first.stdout.close()
        lease.end("done")
        assert outcomes(queue) == ["done"]


@pytest.mark.slow
def test_an_outage_that_outlasts_a_lease_costs_no_worker_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timing = LeaseTiming(0.5, 1.0, watch_seconds=4.0)
    with secantus_server(tmp_path) as server:
        monkeypatch.setenv("SACRED_MONGO_URI", server.uri)
        queue = MongoQueue("rates", say=print, timing=timing)
        queue.add([entry(1)])
        lease = begin(queue)
        server.stop()
        time.sleep(2 * timing.stale_seconds)
        server.start()
        other = MongoQueue("rates", say=print, timing=timing)
        assert other.take() is None, "its worker has had no time to come back"
        wait_until(lambda: outcomes(other) == ["running"])
        assert other.take() is None
        assert not lease.is_lost
        server.stop()
        lease.release()  # it gives up: nobody can wait for a server who is to end
        server.start()
        assert outcomes(other) == ["waiting"]
        wait_until(lambda: other.take() is not None)


@pytest.mark.slow
def test_a_lease_that_was_taken_over_changes_nothing_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with secantus_server(tmp_path) as server:
        monkeypatch.setenv("SACRED_MONGO_URI", server.uri)
        # It gives no sign of life, as a machine that stands still.
        asleep = MongoQueue("rates", say=print, timing=LeaseTiming(heartbeat_seconds=1e6))
        asleep.add([entry(1)])
        stale = asleep.take()
        assert stale
        queue = MongoQueue("rates", say=print, timing=LeaseTiming(0.1, 0.2, watch_seconds=0.1))
        wait_until(lambda: (lease := queue.take()) is not None and lease.begin(0))
        assert not stale.begin(0)
        assert stale.is_lost
        stale.end("failed", error="it lost its place")
        (found,) = queue.entries()
        assert (found.outcome, found.failures, found.starts) == ("running", 0, 1)
