"""The one reader of runs, wherever they are recorded; it needs no torch.

A run is named by its folder (``runs/3``), by the folder or address of its checkpoints
(``checkpoints/job``, ``s3://bucket/job``, or a ``round-000012`` in it), or by its number in MongoDB
(``mongo:7``).
"""

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from scaling_fl.core.errors import UserError
from scaling_fl.runtime.record.events import Event
from scaling_fl.runtime.record.journal import JobRecord
from scaling_fl.runtime.storage.base import explained
from scaling_fl.runtime.storage.plain_files import read_plain
from scaling_fl.runtime.tracking.run_database import MONGO, RunDatabase

RUNNING, DEAD, ENDED, UNKNOWN = "RUNNING", "DEAD", "ENDED", "UNKNOWN"
_ROUND = re.compile(r"round-(\d{6,})")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run has come to, as far as its reader could see."""

    where: str
    """How the run was named."""
    status: str
    """RUNNING, how it ended, or the truth: DEAD when it is recorded as running and nobody lives,
    ENDED when nothing that can be read says how it ended."""
    record: JobRecord
    """Its metrics, clients, failures, notes and checkpoints; who ran it, where and since when."""
    config: Mapping[str, Any]
    """Its settings, as they are stored; empty when they cannot be read."""
    checkpoints: str | None = None
    """The folder or address of its checkpoints."""
    folder: Path | None = None
    journal: Path | None = None

    @property
    def num_rounds(self) -> int:
        """Rounds of the whole run; 0 when nothing that can be read says so."""
        return self.record.num_rounds or int(self.config.get("num_rounds") or 0)

    def facts(self) -> dict[str, Any]:
        """Collect what the closing summary of a run tells."""
        record = self.record
        return {
            "status": self.status,
            "message": record.message,
            "job_name": record.job_name,
            "metrics": record.metrics,
            "num_rounds": self.num_rounds,
            "last_round": record.last_round,
            "stopped_by": record.stopped_by,
            "failures": record.failures,
            "run_dir": from_here(str(self.folder)) if self.folder else None,
            "checkpoints": from_here(self.checkpoints) if self.checkpoints else None,
            "journal": from_here(str(self.journal)) if self.journal else None,
            "resume_command": record.resume_command,
            "is_saved": bool(record.checkpoints),
            "seconds": _seconds(record.started, record.last_event),
        }


def _seconds(began: str | None, ended: str | None) -> float | None:
    if not (began and ended):
        return None
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()


def from_here(path: str) -> str:
    """Write a path below the current folder relative to it; other paths and addresses stay."""
    here = Path.cwd()
    return os.path.relpath(path) if Path(path).is_relative_to(here) else path


def is_run_folder(path: Path) -> bool:
    return (path / "run.json").is_file()


def run_folders(runs_dir: Path) -> list[Path]:
    """List the folders of a folder of runs, by number; a folder without a record is listed, too.

    Raises:
        UserError: there is no such folder.
    """
    if not runs_dir.is_dir():
        raise UserError(
            f"--runs-dir must be a folder of runs, got {str(runs_dir)!r}, which is none; "
            "give the folder that tracking.runs_dir named."
        )
    with explained(f"list {runs_dir}"):
        found = [path for path in runs_dir.iterdir() if path.name.isdecimal() and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name))


def list_runs(place: str) -> list[str]:
    """Name all runs of a folder of runs, or with ``mongo:`` of the database, in ascending order."""
    if place == MONGO:
        return [f"{MONGO}{number}" for number in RunDatabase().numbers()]
    return [str(path) for path in run_folders(Path(place)) if is_run_folder(path)]


def locate(place: str, option: str) -> tuple[str, int | None]:
    """Tell which folder of checkpoints a place means, and which round (None: the newest).

    Raises:
        UserError: there is no such folder; it was given as ``option``.
    """
    place = place.removeprefix("file://")
    if not place.endswith("://"):
        place = place.rstrip("/") or "/"
    parent, _, name = place.rpartition("/")
    if "://" not in place:
        path = Path(place).expanduser()
        is_missing_round = _ROUND.fullmatch(path.name) and path.parent.is_dir()
        if not path.is_dir() and not is_missing_round:
            raise UserError(
                f"{option} must be a folder that exists or an address such as "
                f"s3://bucket/job, got {place}; check the path."
            )
        path = path.resolve()  # so that a dot has a name
        place, parent, name = str(path), str(path.parent), path.name
    match = _ROUND.fullmatch(name)
    return (parent, int(match[1])) if match else (place, None)


class RunSource(ABC):
    """One way to read a run."""

    poll_seconds: float
    """How often it is worth looking for news."""
    tells_its_end = False
    """Whether the lines that it gives hold the closing summary, too."""

    @abstractmethod
    def load(self) -> Run:
        """Read all of the run as it is now.

        Raises:
            UserError: it cannot be read.
        """

    @abstractmethod
    def read_new(self) -> list[Event]:
        """Read what the console shows and was not read before, as events."""

    @abstractmethod
    def is_running(self) -> bool:
        """Whether somebody is at work, so that there may be more news."""


def read_json(path: Path) -> Any:
    """Read a JSON file; None when there is none, or it is being written."""
    try:
        return json.loads(read_plain(path))
    except (OSError, ValueError):
        return None
