"""The slots of a sweep on this machine: started, heard, started again when they die, and ended."""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from scaling_fl.commands.endings import MISUSED, ROOT
from scaling_fl.core.errors import UserError, ignore, stop_signals
from scaling_fl.runtime.machines.launch import GRACE_SECONDS
from scaling_fl.sweeps.placement import SlotOrders, alone

HURRY_SECONDS = 3.0
"""How long a slot may take after the second signal."""
MAX_IDLE_DEATHS = 3
"""So often in a row slots may die before any of them has taken a run."""
POLL_SECONDS = 0.1


class _SlotProcess:
    """A slot, as the process that has started it sees it."""

    def __init__(self, orders: SlotOrders) -> None:
        self.orders = orders
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scaling_fl.commands.sweeps.slot"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=alone(os.environ) | {"PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C reaches only this process, which then ends the slots
        )
        assert self.process.stdin
        assert self.process.stdout
        self.out, self._in = self.process.stdout, self.process.stdin
        self._rest = b""
        with suppress(BrokenPipeError):  # it has died, which is found out in its turn
            self._in.write(json.dumps(asdict(orders)).encode() + b"\n")
            self._in.flush()

    def read(self) -> list[dict[str, Any]]:
        """Return what the slot has told since the last call."""
        data = os.read(self.out.fileno(), 1 << 20)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def send(self, number: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)

    def close(self) -> None:
        self.process.wait()
        self.out.close()
        with suppress(BrokenPipeError):
            self._in.close()


class Slots:
    """Runs slots until all have nothing left to do, or a signal ends them.

    ``hear`` is called with all that they tell of runs.
    """

    def __init__(
        self, orders: Sequence[SlotOrders], hear: Callable[[Mapping[str, Any]], None]
    ) -> None:
        self._orders, self._hear = orders, hear
        self._selector = selectors.DefaultSelector()
        self._slots: list[_SlotProcess] = []
        self._signals: list[int] = []
        self._sent, self._end_by = 0, float("inf")
        self._idle_deaths = 0
        self._refusal = ""

    def run(self) -> int | None:
        """Run the slots; returns the signal that has ended them, None: they had nothing left to do.

        Raises:
            UserError: a slot cannot serve the queue.
        """
        old = {number: signal.signal(number, self._on_signal) for number in stop_signals()}
        try:
            for orders in self._orders:
                self._start(orders)
            while self._slots:
                self._read()
                self._reap()
                self._pass_signals_on()
        finally:
            for slot in self._slots:
                slot.process.kill()
                slot.close()
            self._selector.close()
            for number, handler in old.items():
                signal.signal(number, handler)
        if self._refusal and not self._signals:
            raise UserError(self._refusal)
        return self._signals[0] if self._signals else None

    def _on_signal(self, number: int, frame: object) -> None:
        signal.signal(signal.SIGHUP, ignore)  # it comes beside others, and does not mean "at once"
        self._signals.append(number)

    def _start(self, orders: SlotOrders) -> None:
        slot = _SlotProcess(orders)
        self._slots.append(slot)
        self._selector.register(slot.out, selectors.EVENT_READ, slot)

    def _read(self) -> None:
        for key, _ in self._selector.select(POLL_SECONDS):
            self._take(key.data)

    def _take(self, slot: _SlotProcess) -> None:
        for event in slot.read():
            if event["event"] == "refused":
                self._refusal = event["text"]
            else:
                self._idle_deaths = 0
                self._hear(event)

    def _reap(self) -> None:
        """Part with slots that have ended; start those again that have died."""
        for slot in [slot for slot in self._slots if slot.process.poll() is not None]:
            self._take(slot)
            self._selector.unregister(slot.out)
            self._slots.remove(slot)
            slot.close()
            code = slot.process.returncode
            if code and not self._signals and not self._refusal and code != MISUSED:
                self._start_again(slot)

    def _start_again(self, slot: _SlotProcess) -> None:
        self._idle_deaths += 1
        if self._idle_deaths > MAX_IDLE_DEATHS:
            self._refusal = (
                f"a slot must be able to take runs, and has died {self._idle_deaths} times before "
                f"it took one, with exit code {slot.process.returncode}; see above why."
            )
            return
        self._start(slot.orders)

    def _pass_signals_on(self) -> None:
        """Ask the slots to end, at once after a second signal, and kill those that do not."""
        if self._refusal and not self._sent:
            self._signal_all(GRACE_SECONDS)
        while self._sent < len(self._signals):
            self._signal_all(GRACE_SECONDS if self._sent == 0 else HURRY_SECONDS)
        if time.monotonic() > self._end_by:
            for slot in self._slots:
                slot.process.kill()

    def _signal_all(self, seconds: float) -> None:
        self._sent += 1
        self._end_by = min(self._end_by, time.monotonic() + seconds)
        for slot in self._slots:
            slot.send(signal.SIGTERM)
