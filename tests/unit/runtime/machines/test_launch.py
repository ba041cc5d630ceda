"""Workers from their start to their end; in their place small programs do as they are told."""

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from scaling_fl.runtime.machines.launch import (
    GRACE_SECONDS,
    Callbacks,
    WorkerFailed,
    WorkerGroup,
    WorkerRefused,
)
from scaling_fl.runtime.machines.node import Node, read_node
from tests.stand_ins import stand_ins

SLEEP = "time.sleep(60)"


class Play:
    """A run in which each worker does what its text says."""

    def __init__(self, *plays: str, node: Node | None = None) -> None:
        self.events: list[dict[str, Any]] = []
        self.printed: list[str] = []
        node = node or read_node(list(range(len(plays))), {})
        starter = stand_ins()
        self.group = WorkerGroup(node, {"plays": plays}, num_threads=3, starter=starter)

    def run(self, *stops: int, **options: Any) -> int | None:
        """Run to the end; ``stops`` are signals that come, one a tick, once a worker is ready."""
        left = list(stops)

        def tick() -> None:
            if left and any(event["event"] == "ready" for event in self.events):
                os.kill(os.getpid(), left.pop(0))

        callbacks = Callbacks(event=self.events.append, printed=self.printed.append, tick=tick)
        return self.group.run(callbacks, **options)

    def assert_gone(self) -> None:
        for pid in self.group.pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


def test_events_of_all_workers_arrive_apart_from_what_they_print() -> None:
    play = Play(
        "emit('round', round=1, where=orders['meeting'])",
        "emit('note', text='h\\u00e9'); print('odd', file=sys.stderr)",
    )
    assert play.run() is None
    assert sorted(event["event"] for event in play.events) == ["note", "round"]
    assert "hé" in [event.get("text") for event in play.events]
    assert play.printed == ["[worker 1] odd"]
    [where] = [event["where"] for event in play.events if "where" in event]
    assert (where["sites"], where["num_nodes"]) == ([0, 1], 1)
    assert not Path(where["store_path"]).parent.exists()  # it is removed at the end
    play.assert_gone()


def test_a_long_line_arrives_whole() -> None:
    play = Play("emit('note', text='x' * 3_000_000)")
    play.run()
    assert len(play.events[0]["text"]) == 3_000_000


def test_the_environment_has_threads_and_no_secret_of_the_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SACRED_MONGO_URI", "mongodb://ann:s3cretpw@host/")
    monkeypatch.setenv("SACRED_PASSWORD", "s3cretpw")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cretpw")
    monkeypatch.setenv("HF_HOME", "/kept")
    play = Play("emit('note', environ=dict(os.environ))")
    play.run()
    environ = play.events[0]["environ"]
    assert (environ["OMP_NUM_THREADS"], environ["HF_HOME"]) == ("3", "/kept")
    assert "s3cretpw" not in str(environ)


def test_the_first_error_is_told_once_and_ends_the_others() -> None:
    failed = "emit('failed', kind='user', message='no such file.', traceback='trace'); os._exit(1)"
    lost = "time.sleep(0.5); emit('failed', kind='peer', message='lost contact'); os._exit(1)"
    play = Play(lost, failed, SLEEP)
    began = time.monotonic()
    with pytest.raises(WorkerFailed, match=r"^no such file\.$") as caught:
        play.run()
    assert caught.value.report == "trace"
    assert time.monotonic() - began < GRACE_SECONDS
    play.assert_gone()


def test_what_a_worker_refuses_is_told_apart_from_what_went_wrong() -> None:
    with pytest.raises(WorkerRefused, match=r"^a\.csv must have rows\.$"):
        Play("emit('failed', kind='input', message='a.csv must have rows.'); os._exit(1)").run()


def test_a_worker_that_only_lost_another_does_not_hide_the_one_that_was_killed() -> None:
    killed = "emit('ready'); time.sleep(0.3); os.kill(os.getpid(), signal.SIGKILL)"
    lost = "time.sleep(0.4); emit('failed', kind='peer', message='lost contact'); os._exit(1)"
    play = Play(lost, killed)
    with pytest.raises(WorkerFailed, match=r"worker 1 \(site id 1, process \d+\) was ended by SIG"):
        play.run()


def test_a_worker_that_dies_without_a_word_has_shown_its_last_lines() -> None:
    play = Play("print('one', file=sys.stderr); sys.stderr.flush(); os._exit(7)")
    with pytest.raises(WorkerFailed, match="ended with exit code 7 and gave no reason") as caught:
        play.run()
    assert (play.printed, caught.value.report) == (["[worker 0] one"], "")  # once is enough


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_asks_the_workers_to_end(number: int) -> None:
    given = signal.getsignal(number)
    if given == signal.SIG_IGN:  # as in the background of a shell, where it is to do nothing
        signal.signal(number, signal.SIG_DFL)
    before = signal.getsignal(number)
    play = Play(f"emit('ready'); {SLEEP}", SLEEP)
    try:
        assert play.run(number) == number
        assert signal.getsignal(number) == before
    finally:
        signal.signal(number, given)
    play.assert_gone()


def test_hang_ups_of_several_sides_are_one_and_leave_the_workers_their_time() -> None:
    slow = "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), emit('saved'), stopped()))"
    play = Play(f"{slow}; emit('ready'); {SLEEP}")
    before = signal.getsignal(signal.SIGHUP)
    try:
        assert play.run(signal.SIGHUP, signal.SIGHUP) == signal.SIGHUP
        assert play.events[-1]["event"] == "saved"
        os.kill(os.getpid(), signal.SIGHUP)  # nor does one cut short what follows
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_that_the_caller_has_had_ignored_stays_ignored() -> None:
    """As of ``nohup``."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        play = Play("emit('ready'); time.sleep(1)")
        assert play.run(signal.SIGHUP) is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_ends_workers_that_do_not_listen() -> None:
    deaf = f"signal.signal(signal.SIGTERM, signal.SIG_IGN); emit('ready'); {SLEEP}"
    play = Play(deaf)
    began = time.monotonic()
    assert play.run(signal.SIGTERM, signal.SIGTERM) == signal.SIGTERM
    assert time.monotonic() - began < GRACE_SECONDS
    play.assert_gone()


def test_workers_inherit_what_must_outlive_the_parent() -> None:
    read_end, write_end = os.pipe()
    play = Play(f"os.write({write_end}, b'here')")
    play.run(keep_open=[write_end])
    os.close(write_end)
    assert os.read(read_end, 10) == b"here"
    os.close(read_end)


def test_workers_of_several_machines_are_told_where_to_meet() -> None:
    environ = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "first", "MASTER_PORT": "29"}
    play = Play("emit('note', where=orders['meeting'])", node=read_node([4], environ))
    play.run()
    where = play.events[0]["where"]
    assert (where["host"], where["port"], where["node_rank"]) == ("first", 29, 1)
    assert where["store_path"] is None


@pytest.mark.parametrize(("num_bytes", "expected"), [(64 * 2**20, "1"), (2**30, None)])
def test_nccl_does_without_shared_memory_where_there_is_little(
    num_bytes: int, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(total=num_bytes)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    monkeypatch.delenv("NCCL_SHM_DISABLE", raising=False)
    play = Play("emit('ready', shm=os.environ.get('NCCL_SHM_DISABLE'))")
    play.run()
    assert play.events[0]["shm"] == expected
