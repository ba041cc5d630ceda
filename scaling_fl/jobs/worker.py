"""One worker process: ``python -m scaling_fl.jobs.worker``, started by ``launch``, never by hand.

Orders come as one JSON line on standard input, which then stays open as long as the parent lives.
Events leave on standard output as JSON lines; anything else that is printed goes to standard error.
"""

import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch

from scaling_fl.build.federation import Federation, build, choose_device
from scaling_fl.config import Config, read_config
from scaling_fl.core.errors import UserError
from scaling_fl.core.exchange import Exchange
from scaling_fl.core.records import RoundReport
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.rounds import Watch, run_rounds
from scaling_fl.runtime.machines.exchange import Meeting, PeerLost, connect
from scaling_fl.runtime.machines.node import silence_seconds
from scaling_fl.runtime.machines.vigil import Reason, Vigil

STUCK_SECONDS = 5.0
"""Time for the main thread to end by itself, and to save, once another worker is lost."""
ORPHAN_SECONDS = 2.0
"""Time to tell the other machines that this one's parent process is gone."""


class Stopped(BaseException):
    """SIGTERM came, and the round is abandoned; not an Exception, so that nothing swallows it."""


class Channel:
    """Events to the parent, one JSON line each, from any thread."""

    def __init__(self) -> None:
        self._out = os.dup(1)
        os.dup2(2, 1)  # stray prints of libraries must not end up among the events
        self._lock = threading.Lock()

    def emit(self, event: str, **fields: Any) -> None:
        line = json.dumps({"event": event, **fields}).encode() + b"\n"
        with self._lock:
            while line:
                line = line[os.write(self._out, line) :]


class Worker:
    """This process's part in a run, from its orders to its end."""

    def __init__(self, orders: dict[str, Any], channel: Channel) -> None:
        self._orders, self._channel = orders, channel
        self._stop_asked, self._ending = threading.Event(), threading.Event()
        self._reason: Reason | None = None
        self._is_saving = False
        self._exchange: Exchange | None = None
        self._vigil: Vigil | None = None
        self._federation: Federation | None = None

    def run(self) -> int:
        """Do the work; returns the exit code after telling the parent how it ended."""
        signal.signal(signal.SIGTERM, lambda *_: self._stop_asked.set())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._federate()
        except Stopped:
            self._save_unsaved()
            if self._reason:
                return self._end_because(self._reason)
            self._publish("", was_asked=True)
            return 143
        except UserError as error:
            return self._fail("user", str(error))
        except PeerLost as error:
            return self._fail("peer", str(error))
        except Exception as error:
            return self._explain(error)
        finally:
            if self._vigil:
                self._vigil.close()
        return 0

    def _federate(self) -> None:
        orders = self._orders
        config = read_config(orders["config"], num_nodes=orders["meeting"]["num_nodes"])
        torch.set_num_threads(orders["num_threads"])
        terms = _terms(config, orders["meeting"]["num_nodes"])
        meeting = Meeting(**orders["meeting"], terms=terms)
        speaks = meeting.local_index == 0
        device = choose_device(config.device, orders["device_id"])

        def met(rank: int, size: int) -> None:
            if meeting.store_path is None and size > 1:
                self._vigil = Vigil(
                    (meeting.host, meeting.port),
                    rank,
                    size,
                    silence_seconds=silence_seconds(),
                    lost=self._lost,
                    alive=self._alive,
                )

        self._exchange = connect(meeting, device, self._note, met=met)
        federation = build(
            config,
            self._exchange,
            device,
            orders["job"],
            note=self._note if speaks else self._mute,
            stage=self._stage if speaks else self._mute,
        )
        self._federation = federation
        if speaks:
            self._channel.emit(
                "ready", round=federation.state.round, num_rounds=federation.plan.num_rounds
            )
        run_rounds(
            federation.state,
            federation.plan,
            clients=federation.clients,
            server=federation.server,
            evaluate=federation.evaluator,
            exchange=self._exchange,
            watch=self._watch(federation, speaks=speaks),
        )
        self._exchange.close()

    def _watch(self, federation: Federation, *, speaks: bool) -> Watch:
        """Make the loop's surroundings; one worker of each machine speaks for all."""

        def record(state: GlobalState, report: RoundReport) -> GlobalState:
            if federation.recorder:
                state = federation.recorder.record(state, report)
            if speaks:
                self._channel.emit(
                    "round",
                    round=report.round,
                    num_rounds=federation.plan.num_rounds,
                    metrics=report.metrics,
                    num_clients=len(report.clients),
                    failures=[{"client": r.client, "reason": r.failure} for r in report.failures],
                )
            return state

        def progress(number: int, client: int, step: int, num_steps: int, loss: float) -> None:
            fields = {"round": number, "client": client, "step": step, "num_steps": num_steps}
            self._channel.emit("progress", loss=loss, **fields)

        return Watch(record=record, progress=progress, check=self._check)

    def _check(self) -> None:
        if self._stop_asked.is_set() and not self._is_saving:
            raise Stopped

    def _note(self, text: str) -> None:
        self._check()
        self._channel.emit("note", text=text)

    def _stage(self, text: str) -> None:
        self._check()
        self._channel.emit("stage", text=text)

    def _mute(self, text: str) -> None:
        self._check()

    def _alive(self) -> None:
        self._channel.emit("alive", at=time.monotonic())

    def orphaned(self) -> None:
        """End this process, whose parent is gone, from the lifeline's thread."""
        threading.Timer(ORPHAN_SECONDS, os._exit, (1,)).start()
        if self._vigil:
            self._vigil.publish("its parent process is gone")
            self._vigil.close()
        os._exit(1)

    def _lost(self, reason: Reason) -> None:
        """End this process, on the vigil's thread if the main one is stuck in a collective."""
        self._reason = self._reason or reason  # what comes after the first is its consequence
        self._stop_asked.set()
        if not self._ending.wait(STUCK_SECONDS):
            os._exit(self._end_because(self._reason))

    def _end_because(self, reason: Reason) -> int:
        """Say why another worker ends this one, and return the exit code."""
        self._ending.set()
        text = f"stopped because {reason.text}"
        if reason.was_asked:
            self._channel.emit("note", text=text)
            return 143
        self._channel.emit("failed", kind="peer", message=text)
        return 1

    def _explain(self, error: Exception) -> int:
        """Tell the loss of another worker, which any collective may meet, from an own error."""
        self._save_unsaved()
        if self._reason:
            return self._end_because(self._reason)
        if self._stop_asked.is_set():
            return 143
        alone = self._exchange is not None and self._exchange.size == 1
        if alone or not _is_connection_error(error):
            text = f"{type(error).__name__}: {_first_line(error)}"
            return self._fail("bug", text, traceback.format_exc())
        self._ending.set()
        reason = self._vigil.reason(patience_seconds=3.0) if self._vigil else None
        return self._end_because(reason) if reason else self._fail("peer", _loss(error))

    def _fail(self, kind: str, message: str, trace: str = "") -> int:
        if kind != "peer":
            self._save_unsaved()
            self._publish(message)
        self._channel.emit("failed", kind=kind, message=message, traceback=trace)
        return 1

    def _publish(self, message: str, *, was_asked: bool = False) -> None:
        if self._vigil:
            self._vigil.publish(message, was_asked=was_asked)

    def _save_unsaved(self) -> None:
        """Keep the last finished round; failing to must not hide why the run ends."""
        if self._federation is None:
            return
        self._is_saving = True  # what saving has to say must not stop it
        try:
            self._federation.save_unsaved()
        except OSError as error:
            self._channel.emit("note", text=str(error))


def _terms(config: Config, num_nodes: int) -> dict[str, Any]:
    """List what must be the same on all machines, or they would wait for each other in vain."""
    local = ("train_path", "test_path")
    names = ("num_rounds", "num_clients", "min_clients", "eval_every", "per_class_metrics")
    settings = {name: value for name, value in config.identity().items() if name not in local}
    return settings | {name: getattr(config, name) for name in names} | {"WORLD_SIZE": num_nodes}


def _loss(error: Exception) -> str:
    """Name the loss of a peer without the library's place in its source and its advice."""
    detail = re.sub(r"^.*\[[^\]]*\.\w+:\d+\] ", "", _first_line(error)).partition(". ")[0]
    return f"lost contact with another worker ({detail}); its own output says why."


def _is_connection_error(error: Exception) -> bool:
    text = str(error).lower()
    signs = ("connection", "closed by peer", "gloo", "nccl", "broken pipe", "socket", "timed out")
    return isinstance(error, RuntimeError | OSError) and any(sign in text for sign in signs)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0]


def _watch_parent(orphaned: Callable[[], None]) -> None:
    """Wait until standard input closes: then the parent is gone, however it went."""
    while sys.stdin.buffer.read(1):
        time.sleep(0.1)
    orphaned()


def _wait_for_debugger(index: int, channel: Channel) -> None:
    """Wait until a debugger is attached, where the environment asks this worker to."""
    if os.environ.get("SCALING_FL_DEBUG_WORKER") != str(index):
        return
    import debugpy

    host, _, port = os.environ.get("SCALING_FL_DEBUG_ADDRESS", "127.0.0.1:5678").rpartition(":")
    debugpy.listen((host, int(port)))
    channel.emit("note", text=f"worker {index} waits for a debugger on port {port}")
    debugpy.wait_for_client()


def main() -> None:
    orders = json.loads(sys.stdin.buffer.readline())
    channel = Channel()
    _wait_for_debugger(orders["meeting"]["local_index"], channel)
    worker = Worker(orders, channel)
    lifeline = threading.Thread(target=_watch_parent, args=(worker.orphaned,), daemon=True)
    lifeline.start()
    code = 1
    try:
        code = worker.run()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        # Skip the interpreter's teardown: a stuck collective must not keep the process alive.
        os._exit(code)


if __name__ == "__main__":
    main()
