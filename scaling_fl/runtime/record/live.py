"""How far the clients of the round under way are: one small file beside the journal.

Progress is a state and not a history: only the newest is worth anything, and only while the run
lives. So it is one event that is written over the one before, about once a second and without
fsync, and the journal, which is kept for ever and sent to stores, never grows by it.
"""

import json
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scaling_fl.core.json_text import json_text
from scaling_fl.runtime.storage.plain_files import read_plain

NAME = "progress.json"
WRITE_SECONDS = 1.0
MAX_ROWS = 8


class LiveProgress:
    """Adds up what the workers of this machine say; ``path`` None keeps it in memory alone."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._round = 0
        self._rows: dict[int, tuple[int, int, float]] = {}
        self._done: set[int] = set()
        self._written = 0.0
        self.clear()

    def add(
        self, *, round: int, client: int, step: int, num_steps: int, loss: float
    ) -> dict[str, Any]:
        """Take in how far one client is; returns the event that tells how far all of them are."""
        if round != self._round:
            self._round, self._rows, self._done = round, {}, set()
        self._rows.pop(client, None)
        if step < num_steps:
            self._rows[client] = (step, num_steps, loss)
        else:
            self._done.add(client)
        event = self._event()
        if self._path and time.monotonic() - self._written >= WRITE_SECONDS:
            self._written = time.monotonic()
            # Written in place: a kill in between leaves no file of another name behind.
            with suppress(OSError):
                self._path.write_text(json_text(event))
        return event

    def clear(self) -> None:
        """Remove the file: nothing is under way."""
        if self._path:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _event(self) -> dict[str, Any]:
        rows = sorted(list(self._rows.items())[-MAX_ROWS:])
        return {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "event": "progress",
            "round": self._round,
            "clients": [[client, *row] for client, row in rows],
            "num_done": len(self._done),
        }


def read_progress(journal: Path) -> dict[str, Any] | None:
    """Read what is under way in the job of a journal; None when nothing is or it is being written.

    Its rows are client, step, number of steps and loss.
    """
    try:
        event = json.loads(read_plain(journal.with_name(NAME)))
    except (OSError, ValueError):
        return None
    return event if isinstance(event, dict) and "time" in event else None
