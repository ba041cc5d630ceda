"""Processes that belong together are found by their mark, and ended with all they have started."""

import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scaling_fl.flower.marked import ask_to_end, end_marked, marked
from scaling_fl.flower.programs import MARK
from scaling_fl.runtime.storage.processes import process_start

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")

WAITING = "import time; time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); " + WAITING


@pytest.fixture
def mark() -> Iterator[str]:
    mark = uuid.uuid4().hex
    yield mark
    end_marked(mark, grace_seconds=0)


def start(code: str, mark: str | None, **more: object) -> "subprocess.Popen[bytes]":
    environ = {MARK: mark} if mark else {}
    command = [sys.executable, "-c", code]
    return subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, start_new_session=True, **more
    )


def wait_for(found: Callable[[], set[int]], expected: set[int]) -> set[int]:
    """Wait while processes are being started: for a moment they have no environment."""
    deadline = time.monotonic() + 10
    while (pids := found()) != expected and time.monotonic() < deadline:
        time.sleep(0.01)
    return pids


def ended(process: "subprocess.Popen[bytes]") -> int:
    assert process.stdout
    process.stdout.close()
    return process.wait(10)


def test_a_process_and_its_child_in_another_session_are_ended(mark: str) -> None:
    child = f"subprocess.Popen([sys.executable, '-c', {WAITING!r}], start_new_session=True)"
    parent = start(f"import subprocess, sys; print({child}.pid, flush=True); {WAITING}", mark)
    assert parent.stdout
    pid = int(parent.stdout.readline())
    assert wait_for(lambda: marked(mark), {parent.pid, pid}) == {parent.pid, pid}
    assert end_marked(mark) == 2
    assert (ended(parent), process_start(pid)) == (-15, None)


def test_one_that_has_lost_its_mark_is_found_by_its_session(mark: str) -> None:
    child = f"subprocess.Popen([sys.executable, '-c', {WAITING!r}], env={{}})"
    parent = start(f"import subprocess, sys; print({child}.pid, flush=True); {WAITING}", mark)
    assert parent.stdout
    pid = int(parent.stdout.readline())
    assert wait_for(lambda: marked(mark), {parent.pid}) == {parent.pid}
    assert end_marked(mark) == 2
    assert (ended(parent), process_start(pid)) == (-15, None)


def test_one_that_does_not_listen_is_killed(mark: str) -> None:
    process = start(STUBBORN, mark)
    assert process.stdout
    process.stdout.readline()
    began = time.monotonic()
    assert end_marked(mark, grace_seconds=0.5) == 1
    assert ended(process) == -9
    assert 0.5 <= time.monotonic() - began < 5


def test_a_pid_that_another_process_has_by_now_is_left_alone(mark: str) -> None:
    process = start(WAITING, None)
    assert end_marked(mark, {process.pid: "earlier"}) == 0
    assert process.poll() is None
    assert end_marked(mark, {process.pid: process_start(process.pid) or ""}) == 1
    assert ended(process) in (-15, 0)


def test_processes_with_another_mark_are_left_alone(mark: str) -> None:
    process = start(WAITING, f"{mark}-other")
    assert wait_for(lambda: marked(f"{mark}-other"), {process.pid}) == {process.pid}
    assert end_marked(mark) == 0
    assert process.poll() is None
    assert end_marked(f"{mark}-other") == 1
    assert ended(process) == -15


def test_only_the_command_with_a_word_is_asked_to_end(mark: str) -> None:
    one, other = start(WAITING, mark), start(f"{WAITING}  # other", mark)
    both = {one.pid, other.pid}
    assert wait_for(lambda: marked(mark), both) == both
    assert ask_to_end(mark, WAITING) == 1
    assert ended(one) == -15
    assert other.poll() is None
    assert end_marked(mark) == 1
    assert ended(other) == -15
