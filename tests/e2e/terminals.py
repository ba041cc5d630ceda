"""A terminal of a given width, in which a command is typed and whose screen is read."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Mapping
from pathlib import Path

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """Runs a command with a terminal of its own as input, output and error, until it is closed."""

    def __init__(
        self, argv: list[str], folder: Path, environ: Mapping[str, str], *, columns: int = 80
    ) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        hidden = {"COLUMNS", "LINES", "NO_COLOR"}
        self.process = subprocess.Popen(
            argv,
            cwd=folder,
            env={k: v for k, v in environ.items() if k not in hidden},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self._data = b""
        self._is_closed = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        """Everything that was written so far, with its control codes."""
        return self._data.decode(errors="replace").replace("\r\n", "\n")

    @property
    def lines(self) -> list[str]:
        """The lines that stay on the screen: what was last written to each, without its codes."""
        return [CONTROL.sub("", line).rpartition("\r")[2] for line in self.text.split("\n")]

    def press(self, keys: str) -> None:
        """Type some keys; "\\r" is that which ends a line."""
        os.write(self._ours, keys.encode())

    def end(self, *, expect: int, patience_seconds: float = 120.0) -> "Terminal":
        code = self.process.wait(patience_seconds)
        self._reader.join(5)
        assert code == expect, self.text
        return self

    def hang_up(self) -> None:
        """Close the terminal, as a person closes its window."""
        self._is_closed.set()
        self._reader.join(5)
        os.close(self._ours)

    def _read(self) -> None:
        os.set_blocking(self._ours, False)
        while not self._is_closed.wait(0.02):
            try:
                data = os.read(self._ours, 1 << 16)
            except BlockingIOError:
                continue
            except OSError:  # the last process that had it open has ended
                return
            self._data += data
