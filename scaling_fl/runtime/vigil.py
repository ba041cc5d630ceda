"""Notice within seconds that a worker on another machine is gone, and say why if it is known.

A closed connection ends most waits by itself, but not a lost network or a stuck GPU kernel. Every
worker of a federation over several machines therefore beats in the shared store, watches the next
worker's beat, and reads the one key under which a failing worker leaves its reason.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch.distributed as dist

_REASON = "vigil/reason"


def silence_seconds() -> float:
    """How long a worker may be silent before it counts as lost."""
    return float(os.environ.get("SCALING_FL_SILENCE_SECONDS", "20"))


class Vigil:
    """A thread with a store connection of its own, so that it never waits for a collective."""

    def __init__(
        self, host: str, port: int, rank: int, size: int, lost: Callable[[str], None]
    ) -> None:
        self._address, self._rank, self._size, self._lost = (host, port), rank, size, lost
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vigil", daemon=True)
        self._thread.start()

    def publish(self, message: str) -> None:
        """Leave the first reason why the run ends, for the others to show."""
        try:
            store = self._connect()
            reason = {"rank": self._rank, "host": socket.gethostname(), "message": message}
            store.compare_set(_REASON, "", json.dumps(reason))
        except RuntimeError:
            pass  # the store went down with its worker; the others see that by themselves

    def reason(self, patience_seconds: float) -> str | None:
        """Return the published reason, waiting a little for it."""
        deadline = time.monotonic() + patience_seconds
        try:
            store = self._connect()
            while True:
                if found := self._read(store):
                    return found
                if time.monotonic() > deadline:
                    return None
                time.sleep(0.2)
        except RuntimeError:
            return None

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _connect(self) -> Any:
        host, port = self._address
        return dist.TCPStore(
            host, port, is_master=False, timeout=timedelta(seconds=10), wait_for_workers=False
        )

    def _read(self, store: Any) -> str | None:
        if not store.check([_REASON]):
            return None
        found = json.loads(store.get(_REASON) or "{}")
        if not found or found["rank"] == self._rank:
            return None
        return f"worker {found['rank']} on {found['host']}: {found['message']}"

    def _run(self) -> None:
        neighbour = (self._rank + 1) % self._size
        beat, seen, since = 0, b"", time.monotonic()
        try:
            store = self._connect()
            while not self._stop.wait(1.0):
                beat += 1
                store.set(f"vigil/{self._rank}", str(beat))
                if reason := self._read(store):
                    self._lost(reason)
                    return
                key = f"vigil/{neighbour}"
                now = store.get(key) if store.check([key]) else b""
                if now != seen:
                    seen, since = now, time.monotonic()
                elif seen not in (b"", b"done") and time.monotonic() - since > silence_seconds():
                    self._lost(f"worker {neighbour} has been silent for {silence_seconds():.0f} s")
                    return
            store.set(f"vigil/{self._rank}", "done")
        except RuntimeError:
            if not self._stop.is_set():
                self._lost("the first worker, which all others talk to, is gone")
