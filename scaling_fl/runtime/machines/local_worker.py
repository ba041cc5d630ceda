"""One worker process of this machine, as the process that started it sees it."""

import signal
from dataclasses import dataclass, field
from typing import Any

from scaling_fl.runtime.machines.silence import Pulse
from scaling_fl.runtime.machines.start import Process

STOPPED = (143, -signal.SIGTERM)
"""The exit codes of a worker that ended after SIGTERM."""


@dataclass
class LocalWorker:
    """One worker process, with its output so far."""

    index: int
    device_id: int
    process: Process
    failure: dict[str, Any] | None = None
    was_killed: bool = False
    buffers: dict[str, bytes] = field(default_factory=lambda: {"out": b"", "err": b""})

    def __post_init__(self) -> None:
        self.pulse = Pulse(self.process.pid)

    @property
    def died(self) -> bool:
        """Whether the worker ended without an event, and this process did not end the worker."""
        silent = self.failure is None and not self.was_killed
        return silent and self.process.poll() not in (None, 0, *STOPPED)

    @property
    def who(self) -> str:
        return f"worker {self.index} (site id {self.device_id}, process {self.process.pid})"

    def news(self, limit: float) -> str:
        """Say that the worker is waited for, or is so no longer."""
        if not self.pulse.is_told:
            return f"{self.who} goes on"
        wake = f"; a signal has stopped it, and kill -CONT {self.process.pid} wakes it"
        return f"waiting for {self.who}, {limit:.0f} s at most{wake * self.pulse.is_stopped}"

    def how_it_ended(self) -> str:
        """Wait for the end and describe it."""
        code = self.process.wait()
        if code >= 0:
            return f"{self.who} ended with exit code {code} and gave no reason."
        name = signal.Signals(-code).name
        hint = "; the machine may be out of memory" if -code == signal.SIGKILL else ""
        return f"{self.who} was ended by {name}{hint}."
