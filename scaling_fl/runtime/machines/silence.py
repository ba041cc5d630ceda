"""Notice that a worker of this machine stands still, as after SIGSTOP: the others wait for it.

Workers of several machines watch each other, too (``vigil``), but not themselves.
"""

from pathlib import Path

LONGEST_STEP_SECONDS = 1.0
"""When this process was itself stopped or busy for longer, the rest does not count as silence."""
_LOOK_AFTER_SECONDS = 2.0
_TRACED = "t"


class Pulse:
    """How long a process has given no sign of life: neither a word nor any use of a processor.

    A process may be at work and silent, because a library keeps Python from running. It is watched
    from its first word on, so that slow imports do not count.
    """

    def __init__(self, pid: int) -> None:
        self._stat = Path(f"/proc/{pid}/stat")
        self._silence: float | None = None
        self._used: int | None = None
        self.is_told = False

    def beat(self) -> None:
        """Take note of a word of the process."""
        self._silence, self._used = 0.0, None

    def silence(self, elapsed: float) -> float:
        """Return the seconds of silence, ``elapsed`` seconds after the last call."""
        if self._silence is None:
            return 0.0
        self._silence += min(elapsed, LONGEST_STEP_SECONDS)
        if self._silence > _LOOK_AFTER_SECONDS and self._was_at_work():
            self._silence = 0.0
        return self._silence

    @property
    def is_stopped(self) -> bool:
        """Whether a signal has stopped the process, where the system tells."""
        return self._state()[0] == "T"

    def _was_at_work(self) -> bool:
        state, used = self._state()
        before, self._used = self._used, used
        return state == _TRACED or (used is not None and before is not None and used > before)

    def _state(self) -> tuple[str, int | None]:
        """Return the state of the process and its processor time, in ticks of the kernel."""
        try:
            # The name of the program, in parentheses, may contain any character.
            fields = self._stat.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            return "", None
        return fields[0], int(fields[11]) + int(fields[12])
