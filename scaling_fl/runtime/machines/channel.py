"""The connection of a worker process to its parent: events, the death of the parent, a debugger."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

BEAT_SECONDS = 1.0


class Channel:
    """Sends events to the parent, one JSON line each; any thread may use it."""

    def __init__(self) -> None:
        self._out = os.dup(1)
        os.dup2(2, 1)  # so that libraries print to standard error, and not among the events
        self._lock = threading.Lock()

    def emit(self, event: str, **fields: Any) -> None:
        line = json.dumps({"event": event, **fields}).encode() + b"\n"
        with self._lock:
            while line:
                line = line[os.write(self._out, line) :]

    def show_life(self) -> None:
        """Send a sign of life at once and every second, from a thread that waits for nothing."""
        threading.Thread(target=self._beat, name="life", daemon=True).start()

    def _beat(self) -> None:
        while True:
            self.emit("alive")
            time.sleep(BEAT_SECONDS)


def watch_parent(on_word: Callable[[], None], on_death: Callable[[], None]) -> None:
    """Call ``on_word`` for each line of the parent, and ``on_death`` when standard input closes.

    Standard input closes when the parent has ended in any way.
    """
    while sys.stdin.buffer.readline():
        on_word()
    on_death()


def is_debugged(index: int) -> bool:
    """Say whether a debugger may stop all threads of worker ``index``."""
    return os.environ.get("SCALING_FL_DEBUG_WORKER") == str(index) or "debugpy" in sys.modules


def wait_for_debugger(index: int, channel: Channel) -> None:
    """Wait until a debugger is attached, if the environment asks worker ``index`` to wait."""
    if os.environ.get("SCALING_FL_DEBUG_WORKER") != str(index):
        return
    import debugpy

    host, _, port = (os.environ.get("SCALING_FL_DEBUG_ADDRESS") or "127.0.0.1:5678").rpartition(":")
    debugpy.listen((host, int(port)))
    channel.emit("note", text=f"worker {index} waits for a debugger on port {port}")
    debugpy.wait_for_client()
