"""Notice within seconds that a worker on another machine has ended, and say why if it is known.

A closed connection ends most waits. A lost network, a machine that hangs or a GPU kernel that hangs
do not close it. Therefore, with several machines, every worker writes a heartbeat to the shared
store, watches the heartbeat of the next worker, and reads one key of the store: there, a worker
that ends early writes its reason.
"""

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch.distributed as dist

_REASON, _DONE = "vigil/reason", "done"
_BEAT_SECONDS = 1.0
GOODBYE_SECONDS = 4.0
_CONNECT_SECONDS = 5.0
_FIRST_BEAT_FACTOR = 3
"""The first heartbeat may take this many times longer: machines do not start equally fast."""


@dataclass(frozen=True)
class Reason:
    """Why the run ends: a clause after "because", and whether somebody asked the run to end."""

    text: str
    was_asked: bool = False


_STORE_LOST = Reason("the first worker, to which all others connect, is gone")


class Vigil:
    """Two threads that never wait for an exchange: one uses the store, one times its answers.

    One of them calls ``lost``, at most once, which may end the process.
    """

    def __init__(
        self,
        address: tuple[str, int],
        rank: int,
        size: int,
        *,
        silence_seconds: float,
        lost: Callable[[Reason], None],
    ) -> None:
        self._address, self._rank, self._size = address, rank, size
        self._silence_seconds, self._lost = silence_seconds, lost
        self._host = socket.gethostname()
        self._stop, self._stopped_watching = threading.Event(), threading.Event()
        self._answered = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="vigil", daemon=True)
        self._thread.start()
        threading.Thread(target=self._time_store, name="vigil-timer", daemon=True).start()

    def publish(self, message: str, *, was_asked: bool = False) -> None:
        """Write why the run ends, for all workers to show; the first reason stays."""
        verb = "was asked to stop" if was_asked else f"failed: {message}"
        reason = Reason(f"worker {self._rank} on {self._host} {verb}", was_asked)
        # If the store has ended with its worker, the others notice that by themselves.
        with suppress(RuntimeError):
            self._write_reason(self._connect(), reason)

    def reason(self, patience_seconds: float) -> Reason | None:
        """Return why a connection broke: the published reason, or the worker without a beat."""
        deadline = time.monotonic() + patience_seconds
        try:
            store = self._connect()
            before = self._beats(store)
            while time.monotonic() < deadline:
                if found := self._published(store):
                    return found
                time.sleep(0.2)
            now = self._beats(store)
        except RuntimeError:
            return _STORE_LOST
        still = [rank for rank, beat in now.items() if beat == before.get(rank)]
        still = [rank for rank in still if rank != self._rank and now[rank] != _DONE]
        return Reason(f"worker {still[0]} on {_host(now[still[0]])} is gone") if still else None

    def close(self, patience_seconds: float = GOODBYE_SECONDS) -> None:
        """Write that this worker is done; the first worker may host the store, so it waits."""
        self._stop.set()
        self._thread.join(timeout=5)
        with suppress(RuntimeError):  # torchrun's store ends when torchrun does
            if self._rank == 0:
                self._wait_for_goodbyes(self._connect(), patience_seconds)

    def _connect(self) -> Any:
        host, port = self._address
        # TCPStore holds the interpreter's lock until it is connected, which stops all threads. So
        # check with a plain socket that the host answers.
        try:
            socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
        except OSError as error:
            raise RuntimeError(f"{host}:{port} does not answer ({error})") from error
        return dist.TCPStore(  # type: ignore[attr-defined]
            host, port, is_master=False, timeout=timedelta(seconds=10), wait_for_workers=False
        )

    def _beats(self, store: Any) -> dict[int, str]:
        keys = {rank: f"vigil/{rank}" for rank in range(self._size)}
        return {r: store.get(key).decode() for r, key in keys.items() if store.check([key])}

    def _published(self, store: Any) -> Reason | None:
        if not store.check([_REASON]):
            return None
        found = json.loads(store.get(_REASON) or "{}")
        if not found or found["rank"] == self._rank:
            return None
        return Reason(found["text"], found["was_asked"])

    def _write_reason(self, store: Any, reason: Reason) -> None:
        record = {"rank": self._rank, "text": reason.text, "was_asked": reason.was_asked}
        store.compare_set(_REASON, "", json.dumps(record))

    def _wait_for_goodbyes(self, store: Any, seconds: float) -> None:
        """Keep this worker, and with it the store, until the others are done."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            beats = self._beats(store)
            if all(beat == _DONE for rank, beat in beats.items() if rank):
                return
            time.sleep(0.1)

    def _run(self) -> None:
        try:
            store = self._connect()
            reason = self._watch(store)
            self._stopped_watching.set()
            if reason:
                self._write_reason(store, reason)
            store.set(f"vigil/{self._rank}", _DONE)
        except RuntimeError:
            # If this worker is being stopped, so is the host of the store, and nothing is lost.
            reason = _STORE_LOST
        if reason and not self._stop.is_set():
            self._lost(reason)

    def _watch(self, store: Any) -> Reason | None:
        """Write the heartbeat and watch the next one, until this worker is done or must end."""
        key = f"vigil/{(self._rank + 1) % self._size}"
        beat, seen, since = 0, "", time.monotonic()
        while not self._stop.is_set():
            beat += 1
            store.set(f"vigil/{self._rank}", f"{beat} {self._host}")
            if reason := self._published(store):
                return reason
            now = store.get(key).decode() if store.check([key]) else ""
            self._answered = time.monotonic()
            if now != seen:
                seen, since = now, self._answered
            patience = self._silence_seconds * (1 if seen else _FIRST_BEAT_FACTOR)
            if seen != _DONE and self._answered - since > patience:
                silent = f"{key.replace('vigil/', 'worker ')}{f' on {_host(seen)}' * bool(seen)}"
                return Reason(f"{silent} has been silent for {patience:.0f} s")
            self._stop.wait(_BEAT_SECONDS)
        return None

    def _time_store(self) -> None:
        """Check that the store answers: a machine that hangs does not close its connections."""
        while not self._stop.wait(_BEAT_SECONDS):
            silence = time.monotonic() - self._answered
            if not self._stopped_watching.is_set() and silence > self._silence_seconds:
                where = ":".join(map(str, self._address))
                self._lost(Reason(f"{where} has not answered for {self._silence_seconds:.0f} s"))
                return


def _host(beat: str) -> str:
    return beat.partition(" ")[2]
