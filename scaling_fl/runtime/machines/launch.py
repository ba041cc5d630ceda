"""A node of the federation -> worker processes on this machine, watched until they end.

The parent does not import torch, so it starts at once and stays small. Each worker reads its orders
from standard input, as one JSON line, and watches that pipe: a second line lets its rounds begin,
and when the parent dies in any way, the pipe closes and the worker ends itself. The worker writes
events to standard output, as JSON lines; the parent shows its standard error. (torch's elastic
launcher is not used: it needs torch in the parent, and its workers go on when the parent is
killed.)
"""

import json
import os
import selectors
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling_fl.core.errors import InputError, UserError, ignore, stop_signals
from scaling_fl.core.waiting import SAY_AFTER_SECONDS, silence_seconds
from scaling_fl.runtime.machines.local_worker import STOPPED, LocalWorker
from scaling_fl.runtime.machines.node import Node
from scaling_fl.runtime.machines.start import (
    FreshProcesses,
    Starter,
    worker_environment,
)

GRACE_SECONDS = 25.0
"""The time for a worker to end after SIGTERM; clusters kill 30 seconds after SIGTERM."""
AFTERMATH_SECONDS = 8.0
"""The time for the other workers to end after one worker has failed."""
VIGIL_FIRST_SECONDS = 5.0
"""The time for the vigil of another machine's worker to report a silent worker first."""


class WorkerFailed(UserError):
    """A worker failed; ``report`` is its traceback, if it has one that it has not printed."""

    def __init__(self, message: str, report: str = "") -> None:
        super().__init__(message)
        self.report = report


class WorkerRefused(WorkerFailed, InputError):
    """A worker refused what it was given."""


class WorkerDied(WorkerFailed):
    """Something else ended a worker, such as a signal or a machine that is out of memory."""


@dataclass(frozen=True)
class Callbacks:
    """The functions that a group calls while its workers run."""

    event: Callable[[dict[str, Any]], None]
    """For each event of a worker."""
    printed: Callable[[str], None]
    """For each line that a worker prints to standard error."""
    tick: Callable[[], None]
    """About ten times a second."""


class WorkerGroup:
    """The workers of this machine."""

    def __init__(
        self,
        node: Node,
        orders: dict[str, Any],
        *,
        num_threads: int,
        starter: Starter | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="scaling_fl-")
        self._node, self._orders, self._num_threads = node, orders, num_threads
        self._starter = starter or FreshProcesses()
        self._workers: list[LocalWorker] = []
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = []
        self._stop_by = float("inf")

    @property
    def pids(self) -> list[int]:
        return [worker.process.pid for worker in self._workers]

    def request_stop(self, signal_number: int) -> None:
        """Ask the workers to abandon the round and to end; the second call kills them."""
        self._signals.append(signal_number)

    def run(self, callbacks: Callbacks, *, keep_open: Sequence[int] = ()) -> int | None:
        """Start the workers and watch them until all have ended.

        Returns the signal that stopped the run; None if no signal did. The workers inherit the
        file descriptors ``keep_open``, such as the lock of the claim.

        Raises:
            WorkerFailed: a worker failed; only the first failure is raised.
        """
        old = {s: signal.signal(s, self._on_signal) for s in stop_signals()}
        try:
            while not (self._starter.is_ready(0.1) or self._signals):
                callbacks.tick()
            if not self._signals:
                self._start(keep_open)
            self._starter.close()
            looked = time.monotonic()
            while any(worker.process.poll() is None for worker in self._workers):
                self._read(callbacks, timeout=0.1)
                before, looked = looked, time.monotonic()
                self._find_silent(looked - before, callbacks)
                callbacks.tick()
                self._end_if_due()
            self._read(callbacks, timeout=0.0)
            self._end_if_due()
        finally:
            self._kill()
            self._collect()
            if self._signals:
                old.pop(signal.SIGHUP, None)
            for number, handler in old.items():
                signal.signal(number, handler)
            self._folder.cleanup()
        callbacks.tick()
        self._raise_first_failure()
        return self._signals[0] if self._signals else None

    def _start(self, keep_open: Sequence[int]) -> None:
        environment = worker_environment(self._num_threads, os.environ)
        for index, device_id in enumerate(self._node.device_ids):
            process = self._starter.start(environment, keep_open)
            worker = LocalWorker(index, device_id, process)
            self._workers.append(worker)
            assert process.stdin
            assert process.stdout
            assert process.stderr
            process.stdin.write(json.dumps(self._orders_of(index)).encode() + b"\n")
            process.stdin.flush()
            for stream, name in ((process.stdout, "out"), (process.stderr, "err")):
                os.set_blocking(stream.fileno(), False)
                self._selector.register(stream, selectors.EVENT_READ, (worker, name))

    def _orders_of(self, index: int) -> dict[str, Any]:
        node = self._node
        store = str(Path(self._folder.name) / "store") if node.num_nodes == 1 else None
        return self._orders | {
            "device_id": node.device_ids[index],
            "num_threads": self._num_threads,
            "meeting": {
                "node_rank": node.rank,
                "num_nodes": node.num_nodes,
                "local_index": index,
                "sites": node.sites,
                "store_path": store,
                "host": node.host,
                "port": node.port,
                "agent_store": node.agent_store,
            },
        }

    def _read(self, callbacks: Callbacks, *, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            worker, name = key.data
            data = os.read(key.fd, 1 << 20)
            if not data:
                self._selector.unregister(key.fileobj)
            *lines, worker.buffers[name] = (worker.buffers[name] + data).split(b"\n")
            for line in lines:
                self._take_line(worker, name, line.decode(errors="replace"), callbacks)

    def _take_line(self, worker: LocalWorker, name: str, line: str, callbacks: Callbacks) -> None:
        if name == "err":
            callbacks.printed(f"[worker {worker.index}] {line}")
            return
        event = json.loads(line)
        if event["event"] == "alive":
            worker.pulse.beat()
        elif event["event"] == "failed":
            worker.failure = event
        else:
            callbacks.event(event)
            if event["event"] == "ready":
                self._let_begin(worker)

    @staticmethod
    def _let_begin(worker: LocalWorker) -> None:
        """Tell a worker that its readiness is known; it waits for that with its first round."""
        assert worker.process.stdin
        with suppress(BrokenPipeError):  # it has died, which is found out in its turn
            worker.process.stdin.write(b"begin\n")
            worker.process.stdin.flush()

    def _on_signal(self, number: int, frame: object) -> None:
        # A closed terminal is told by several sides, and none of them means "at once".
        signal.signal(signal.SIGHUP, ignore)
        self.request_stop(number)

    def _end_if_due(self) -> None:
        """After a signal or a failure, ask all workers to end; kill them if they do not."""
        asked = self._stop_by < float("inf")
        if not asked and not self._signals and self._was_stopped():
            self._signals.append(signal.SIGTERM)
        if not asked and self._signals:
            self._ask_to_end(GRACE_SECONDS)
        elif not asked and any(w.failure or w.process.poll() for w in self._workers):
            self._ask_to_end(AFTERMATH_SECONDS)
        elif time.monotonic() > self._stop_by or len(self._signals) > 1:
            self._kill()

    def _was_stopped(self) -> bool:
        """Say whether another process has stopped a worker, as on another machine."""
        stopped = any(w.process.poll() in STOPPED and not w.failure for w in self._workers)
        kinds = {w.failure["kind"] for w in self._workers if w.failure}
        return stopped and kinds <= {"peer"} and not any(w.died for w in self._workers)

    def _find_silent(self, elapsed: float, callbacks: Callbacks) -> None:
        """Tell that a worker gives no sign of life, and kill it if that goes on."""
        limit = silence_seconds() + VIGIL_FIRST_SECONDS
        for w in self._workers:
            if w.failure or w.process.poll() is not None:
                continue
            silence = w.pulse.silence(elapsed)
            if silence > limit:
                why = "; a signal had stopped it" if w.pulse.is_stopped else ""
                text = f"{w.who} has been silent for {limit:.0f} s and was killed{why}."
                w.failure = {"kind": "silent", "message": text}
                w.process.kill()
            elif w.pulse.is_told != (silence > SAY_AFTER_SECONDS):
                w.pulse.is_told = not w.pulse.is_told
                callbacks.event({"event": "note", "text": w.news(limit)})

    def _ask_to_end(self, grace_seconds: float) -> None:
        self._stop_by = time.monotonic() + grace_seconds
        for worker in self._workers:
            worker.process.send_signal(signal.SIGTERM)

    def _kill(self) -> None:
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.was_killed = True
                worker.process.kill()

    def _collect(self) -> None:
        """Wait until all workers have ended, and close their pipes."""
        for worker in self._workers:
            worker.process.wait()
            for stream in (worker.process.stdin, worker.process.stdout, worker.process.stderr):
                if stream:
                    with suppress(BrokenPipeError):  # it died before it had read all
                        stream.close()
        self._selector.close()

    def _raise_first_failure(self) -> None:
        if self._signals:
            return
        # A worker that died comes first, because it sends no event. A worker that only reports the
        # loss of another worker ("peer") comes last.
        silent = [w for w in self._workers if w.died]
        failed = [w for w in self._workers if w.failure]
        failed.sort(key=lambda w: (w.failure or {})["kind"] == "peer")
        for worker in [*silent, *failed]:
            if worker.failure:
                end = WorkerRefused if worker.failure["kind"] == "input" else WorkerFailed
                raise end(worker.failure["message"], worker.failure.get("traceback", ""))
            raise WorkerDied(worker.how_it_ended())
