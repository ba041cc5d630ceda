"""What a run has printed, kept in its folder line by line."""

import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from scaling_fl.runtime.redaction import redact

MAX_OUTPUT_BYTES = 10_000_000


class CapturedOutput:
    """Appends lines to a file, once there is one; any thread may add them."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = secrets
        self._lock = threading.Lock()
        self._waiting = b""
        self._path: Path | None = None
        self._num_bytes = 0

    def open(self, path: Path) -> None:
        """Go on in a file, which may have lines of earlier attempts."""
        with self._lock:
            self._path = path
            self._num_bytes += path.stat().st_size if path.exists() else 0
            self._flush()

    def add(self, line: str) -> None:
        """Store a line at once; after MAX_OUTPUT_BYTES only a note says so.

        What a full disk does not take waits for the next line.
        """
        with self._lock:
            data = (redact(line, self._secrets) + "\n").encode("utf-8", "replace")
            if self._num_bytes >= MAX_OUTPUT_BYTES:
                return
            if self._num_bytes + len(data) > MAX_OUTPUT_BYTES:
                data = f"[output beyond {MAX_OUTPUT_BYTES:,} bytes is not kept]\n".encode()
                self._num_bytes = MAX_OUTPUT_BYTES
            self._num_bytes += len(data)
            self._waiting += data
            self._flush()

    def _flush(self) -> None:
        # Output that cannot be kept is no reason to stop a run.
        with suppress(OSError):
            if self._path and self._waiting:
                with self._path.open("ab", buffering=0) as file:
                    taken = file.write(self._waiting)
                self._waiting = self._waiting[taken:]
