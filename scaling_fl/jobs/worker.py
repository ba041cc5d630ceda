"""One worker process: ``python -m scaling_fl.jobs.worker``, or a fork that ``workers`` makes.

Orders come as one JSON line on standard input, which then stays open as long as the parent lives.
Events leave on standard output as JSON lines; anything else that is printed goes to standard error.
"""

import json
import os
import signal
import sys
import threading
import traceback
from typing import Any

import torch

from scaling_fl.composition import own
from scaling_fl.composition.federation import Federation, build, choose_device
from scaling_fl.composition.fingerprint import of_machines
from scaling_fl.config import read_config
from scaling_fl.core.errors import InputError, UserError
from scaling_fl.core.exchange import Exchange
from scaling_fl.core.records import RoundReport
from scaling_fl.core.state import GlobalState
from scaling_fl.core.waiting import Waiting, silence_seconds
from scaling_fl.federation.rounds import Hooks
from scaling_fl.runtime.machines.channel import (
    Channel,
    is_debugged,
    wait_for_debugger,
    watch_parent,
)
from scaling_fl.runtime.machines.exchange import (
    connect,
    explain_lost_connection,
    first_line,
    is_lost_connection,
)
from scaling_fl.runtime.machines.meeting import Meeting, PeerLost
from scaling_fl.runtime.machines.office import open_office
from scaling_fl.runtime.machines.vigil import Reason, Vigil

STUCK_SECONDS = 5.0
"""Time for the main thread to end by itself, and to save, once another worker is lost."""
ORPHAN_SECONDS = 2.0
"""Time to tell the other machines that this one's parent process is gone."""


class StopRequested(BaseException):
    """SIGTERM came, and the round is abandoned; not an Exception, so that nothing swallows it."""


class Worker:
    """This process's part in a run, from its orders to its end."""

    def __init__(self, orders: dict[str, Any], channel: Channel) -> None:
        self._orders, self._channel = orders, channel
        self._stop_asked, self._ending = threading.Event(), threading.Event()
        self._may_begin = threading.Event()
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
        except StopRequested:
            self._save_unsaved()
            if self._reason:
                return self._end_because(self._reason)
            self._publish("", was_asked=True)
            return 143
        except UserError as error:
            kind = "input" if isinstance(error, InputError) else "user"
            return self._fail(kind, str(error))
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
        # What the parent finds is found here: a module of the user may be beside a notebook.
        sys.path += [path for path in orders["paths"] if path not in sys.path]
        office = open_office()
        is_elsewhere = office is not None and office.owns_data
        num_nodes = orders["meeting"]["num_nodes"]
        config = read_config(orders["config"], num_nodes=num_nodes, has_data=not is_elsewhere)
        torch.set_num_threads(orders["num_threads"])
        common = of_machines(config, num_nodes) | own.sources(config)
        meeting = Meeting(**orders["meeting"], common_settings=common)
        speaks_for_machine = meeting.local_index == 0
        device = choose_device(config.device, orders["device_id"])

        def start_vigil(rank: int, size: int) -> None:
            if meeting.store_path is None and size > 1:
                self._vigil = Vigil(
                    (meeting.host, meeting.port),
                    rank,
                    size,
                    silence_seconds=silence_seconds(),
                    lost=self._end_after_loss,
                )

        waiting = Waiting(self._note)

        def wait(text: str) -> None:
            self._check()
            waiting(text)

        self._exchange = connect(meeting, device, wait, before_connecting=start_vigil)
        federation = build(
            config,
            self._exchange,
            device,
            orders["job"],
            note=self._note if speaks_for_machine else self._say_nothing,
            stage=self._stage if speaks_for_machine else self._say_nothing,
            office=office,
        )
        self._federation = federation
        if speaks_for_machine:
            self._channel.emit(
                "ready", round=federation.state.round, num_rounds=federation.rounds.num_rounds
            )
            # The parent puts this start on record first, now that nothing can refuse it any more.
            while not self._may_begin.wait(0.1):
                self._check()
        federation.run(self._watch(federation, speaks_for_machine=speaks_for_machine))
        self._exchange.close()

    def _watch(self, federation: Federation, *, speaks_for_machine: bool) -> Hooks:
        """Make what the loop calls; the first worker of a machine reports the rounds."""

        def record(state: GlobalState, report: RoundReport) -> GlobalState:
            if federation.recorder:
                state = federation.recorder.record(state, report)
                for text in federation.notices.of(report):
                    self._channel.emit("note", level="warning", text=text)
            if speaks_for_machine:
                self._channel.emit(
                    "round",
                    round=report.round,
                    num_rounds=federation.rounds.num_rounds,
                    metrics=report.metrics,
                    num_clients=len(report.clients),
                    failures=[{"client": r.client, "reason": r.failure} for r in report.failures],
                    stopped_by=report.stopped_by,
                )
            return state

        def progress(number: int, client: int, step: int, num_steps: int, loss: float) -> None:
            fields = {"round": number, "client": client, "step": step, "num_steps": num_steps}
            self._channel.emit("progress", loss=loss, **fields)

        return Hooks(record=record, progress=progress, check=self._check)

    def _check(self) -> None:
        if self._stop_asked.is_set() and not self._is_saving:
            raise StopRequested

    def _note(self, text: str) -> None:
        self._check()
        self._channel.emit("note", text=text)

    def _stage(self, text: str) -> None:
        self._check()
        self._channel.emit("stage", text=text)

    def _say_nothing(self, text: str) -> None:
        self._check()

    def begin(self) -> None:
        """Let the rounds begin; called by the thread that listens to the parent."""
        self._may_begin.set()

    def end_without_parent(self) -> None:
        """End this process, whose parent is gone; called by the thread that watches the parent."""
        threading.Timer(ORPHAN_SECONDS, os._exit, (1,)).start()
        if self._vigil:
            self._vigil.publish("its parent process is gone")
            self._vigil.close()
        os._exit(1)

    def _end_after_loss(self, reason: Reason) -> None:
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
        is_alone = self._exchange is not None and self._exchange.size == 1
        if is_alone or not is_lost_connection(error):
            text = f"{type(error).__name__}: {first_line(error)}"
            return self._fail("bug", text, traceback.format_exc())
        self._ending.set()
        reason = self._vigil.reason(patience_seconds=3.0) if self._vigil else None
        if reason:
            return self._end_because(reason)
        return self._fail("peer", explain_lost_connection(error))

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


def main() -> None:
    """Do the work that the orders on standard input describe; ends the process."""
    orders = json.loads(sys.stdin.buffer.readline())
    channel, index = Channel(), orders["meeting"]["local_index"]
    wait_for_debugger(index, channel)
    if not is_debugged(index):
        channel.show_life()
    worker = Worker(orders, channel)
    callbacks = (worker.begin, worker.end_without_parent)
    watcher = threading.Thread(target=watch_parent, args=callbacks, daemon=True)
    watcher.start()
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
