"""Processes that carry a mark in their environment: to find and to end them, with all they started.

Flower and Ray start processes in sessions of their own, so neither a group nor a parent leads to
them. What a process was given as its environment does, through ``/proc``; where a process has
written over it, as some of Ray's do for a title, its session does.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from scaling_fl.flower.programs import MARK
from scaling_fl.runtime.storage.processes import process_start

GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.1


def marked(mark: str) -> set[int]:
    """List the living processes with a mark; without ``/proc`` there is no way to know any."""
    words = f"{MARK}={mark}".encode()
    return {pid for pid in _living() if words in _environ(pid)}


def _living() -> list[int]:
    if not Path("/proc/self/environ").exists():
        return []
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return [pid for pid in pids if pid != os.getpid() and process_start(pid) is not None]


def _environ(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or belongs to another user
        return []


def ask_to_end(mark: str, word: str) -> int:
    """Ask the processes with a mark whose command has a word to end; return how many there are."""
    found = [pid for pid in marked(mark) if word.encode() in _command(pid)]
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    return len(found)


def _command(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def end_marked(
    mark: str, others: Mapping[int, str] | None = None, *, grace_seconds: float = GRACE_SECONDS
) -> int:
    """Ask all processes with a mark to end, kill those that do not, and return how many there were.

    ``others`` are more of them, by pid, each with the start that ``process_start`` told of it: a
    process that has only got the same pid is left alone.
    """
    sessions: set[int | None] = set()

    def find() -> set[int]:
        found = marked(mark) | _still(others or {})
        sessions.update(_sessions_of(found))
        return found | {pid for pid in _living() if _session(pid) in sessions}

    return _end(find, grace_seconds)


def end_known(known: Mapping[int, str], *, grace_seconds: float = GRACE_SECONDS) -> int:
    """End processes that are known by pid and start, and none that these have started."""
    return _end(lambda: _still(known), grace_seconds)


def _end(find: Callable[[], set[int]], grace_seconds: float) -> int:
    asked: set[int] = set()
    deadline = time.monotonic() + grace_seconds
    num_empty = 0
    # A process that is just being started has no environment for a moment: look twice.
    while num_empty < 2:
        left = find()
        num_empty = 0 if left else num_empty + 1
        is_late = time.monotonic() > deadline
        # Whoever was started meanwhile has not been asked yet.
        for pid in left if is_late else left - asked:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if is_late else signal.SIGTERM)
        asked |= left
        time.sleep(_POLL_SECONDS)
    return len(asked)


def _still(others: Mapping[int, str]) -> set[int]:
    for pid in others:
        with suppress(ChildProcessError):  # without /proc, a child that has ended seems to live
            os.waitpid(pid, os.WNOHANG)
    return {pid for pid, start in others.items() if process_start(pid) == start}


def _sessions_of(pids: Iterable[int]) -> set[int | None]:
    """List the sessions of processes, without this one's own."""
    return {_session(pid) for pid in pids} - {None, os.getsid(0)}


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None
