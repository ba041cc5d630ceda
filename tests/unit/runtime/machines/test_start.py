"""A worker that was forked from a preloaded process is in all that counts a child of this one."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scaling_fl.runtime.machines.start import (
    FreshProcesses,
    PreloadedProcess,
    Process,
    choose_starter,
    worker_environment,
)
from tests.preloaded import lasting_process

NO_ORDERS = b"{}\n"
"""A worker ends with a traceback and exit code 1 after these."""


@pytest.fixture
def worker() -> Iterator[Process]:
    worker = start()
    yield worker
    worker.kill()
    worker.wait()
    close(worker)


def start(keep_open: tuple[int, ...] = (), **environment: str) -> Process:
    starter = lasting_process()
    assert starter.is_ready(60)
    return starter.start(worker_environment(1, os.environ) | environment, keep_open)


def close(worker: Process) -> None:
    for stream in (worker.stdin, worker.stdout, worker.stderr):
        assert stream
        stream.close()


def test_it_is_a_child_in_a_session_of_its_own_with_a_name_to_find_it_by(worker: Process) -> None:
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines()
    )
    assert int(status["PPid"]) == os.getpid()
    assert os.getsid(worker.pid) == worker.pid
    assert b"scaling_fl.jobs.worker" in Path(f"/proc/{worker.pid}/cmdline").read_bytes()
    assert worker.poll() is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_signal_that_ends_it_is_its_exit_code(worker: Process, number: int) -> None:
    worker.send_signal(number)
    assert worker.wait() == worker.returncode == worker.poll() == -number
    worker.send_signal(number)  # nobody is hit: who is gone is known


def test_its_streams_and_its_exit_code_are_its_own() -> None:
    first, second = start(), start()
    for worker in (first, second):
        assert worker.stdin
        worker.stdin.write(NO_ORDERS)
        worker.stdin.flush()
    for worker in (first, second):
        assert worker.stderr
        assert b"KeyError: 'meeting'" in worker.stderr.read()
        assert worker.wait() == 1
        close(worker)


def test_it_ends_when_this_process_closes_its_standard_input(worker: Process) -> None:
    assert worker.stdin
    worker.stdin.close()
    assert worker.wait() == 1  # there were no orders to read


def test_it_holds_what_must_outlive_the_parent_and_the_preloaded_process_does_not() -> None:
    read_end, write_end = os.pipe()
    worker = start((write_end,))
    os.close(write_end)
    os.set_blocking(read_end, False)
    with pytest.raises(BlockingIOError):  # no end of file yet
        os.read(read_end, 1)
    worker.kill()
    worker.wait()
    close(worker)
    assert os.read(read_end, 1) == b""
    os.close(read_end)


def test_where_forking_fails_a_worker_gets_an_interpreter_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starter = PreloadedProcess(worker_environment(1, os.environ))
    starter.close()
    monkeypatch.setattr(FreshProcesses.__init__, "__defaults__", ([sys.executable, "--version"],))
    worker = starter.start(dict(os.environ), ())
    assert isinstance(worker, subprocess.Popen)
    assert worker.stdout
    assert worker.stdout.read().startswith(b"Python 3")
    assert worker.wait() == 0
    close(worker)


def test_closing_does_not_wait_for_the_imports() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    starter = PreloadedProcess(worker_environment(1, os.environ))
    starter.close()
    starter.close()
    # Torch alone takes more of a core, however busy the machine is.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 0.5


@pytest.mark.parametrize(
    ("device", "environ"), [("cuda", {}), ("cpu", {"TORCHELASTIC_RUN_ID": "1"})]
)
def test_gpus_and_torchrun_get_fresh_interpreters(device: str, environ: dict[str, str]) -> None:
    assert isinstance(choose_starter(device, 1, environ), FreshProcesses)


def test_what_a_debugger_follows_is_started_by_the_command_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "debugpy", sys)
    assert isinstance(choose_starter("cpu", 1, {}), FreshProcesses)


def test_a_notebook_has_a_preloaded_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel has imported debugpy, although nobody debugs."""
    for name in ("debugpy", "ipykernel"):
        monkeypatch.setitem(sys.modules, name, sys)
    starter = choose_starter("cpu", 1, {})
    starter.close()
    assert isinstance(starter, PreloadedProcess)
