"""Between a worker process and its parent: events, the parent's death, and a debugger."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any


class Channel:
    """Events to the parent, one JSON line each, from any thread."""

    def __init__(self) -> None:
        self._out = os.dup(1)
        os.dup2(2, 1)  # what libraries print must not end up among the events
        self._lock = threading.Lock()

    def emit(self, event: str, **fields: Any) -> None:
        line = json.dumps({"event": event, **fields}).encode() + b"\n"
        with self._lock:
            while line:
                line = line[os.write(self._out, line) :]


def watch_parent(on_death: Callable[[], None]) -> None:
    """Wait until standard input closes: then the parent is gone, however it went."""
    while sys.stdin.buffer.read(1):
        time.sleep(0.1)
    on_death()


def wait_for_debugger(index: int, channel: Channel) -> None:
    """Wait until a debugger is attached, where the environment asks this worker to."""
    if os.environ.get("SCALING_FL_DEBUG_WORKER") != str(index):
        return
    import debugpy

    host, _, port = os.environ.get("SCALING_FL_DEBUG_ADDRESS", "127.0.0.1:5678").rpartition(":")
    debugpy.listen((host, int(port)))
    channel.emit("note", text=f"worker {index} waits for a debugger on port {port}")
    debugpy.wait_for_client()
