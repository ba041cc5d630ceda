"""A run read from the journal of its job: on this machine, or from the copy in a store."""

import hashlib
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from scaling_fl.core.errors import UserError
from scaling_fl.runtime.record.events import Event, parse_line
from scaling_fl.runtime.record.journal import JOURNAL, JobRecord, JournalTail, fold
from scaling_fl.runtime.record.live import read_progress
from scaling_fl.runtime.storage import NotStored, Storage
from scaling_fl.runtime.storage.base import explained
from scaling_fl.runtime.storage.claim import is_in_use, read_owner
from scaling_fl.runtime.storage.plain_files import read_plain
from scaling_fl.runtime.tracking.run_database import MONGO
from scaling_fl.runtime.tracking.runs import (
    DEAD,
    ENDED,
    RUNNING,
    UNKNOWN,
    Run,
    RunSource,
    from_here,
    read_json,
)


class JournalSource(RunSource):
    """The journal of a job on this machine: all of it, and the progress beside it."""

    poll_seconds = 0.3

    def __init__(self, path: Path, storage: Storage, folder: Path | None) -> None:
        self._path, self._storage, self._folder = path, storage, folder
        self._tail, self._progress = JournalTail(path), ""
        self._status: str | None = None

    def load(self) -> Run:
        with explained(f"read the journal {self._path}"):
            record = fold(JournalTail(self._path).read_new())
        if progress := read_progress(self._path):
            record.last_event = max(record.last_event or "", progress["time"])
        self._status = record.status
        folder = self._folder or _run_folder_of(record, self._path, self._storage)
        config = read_json(folder / "config.json") if folder else None
        return Run(
            where=from_here(str(folder or self._path.parent)),
            status=_status(record, self._storage),
            record=record,
            config=config or _config_of(record, self._storage),
            checkpoints=self._storage.url,
            folder=folder,
            journal=self._path,
        )

    def uid(self) -> str | None:
        """Tell which job's journal it is, without reading its rounds."""
        with explained(f"read the journal {self._path}"):
            lines = read_plain(self._path).splitlines()
        # Few lines start a job, and those of its rounds are long.
        starts = [parse_line(line) for line in lines if b'"start"' in line[:200]]
        return fold(event for event in starts if event["event"] == "start").uid

    def read_new(self) -> list[Event]:
        with explained(f"read the journal {self._path}"):
            events = self._tail.read_new()
        for event in events:
            if event["event"] in ("start", "end"):
                self._status = "running" if event["event"] == "start" else event["status"]
        progress = read_progress(self._path)
        if progress and progress["time"] != self._progress:
            self._progress = progress["time"]
            events.append(progress)
        return events

    def is_running(self) -> bool:
        return self._status == "running" and is_in_use(self._storage)


class JournalCopySource(RunSource):
    """The copy of a journal in an object store, as of the newest checkpoint there."""

    poll_seconds = 5.0

    def __init__(self, storage: Storage) -> None:
        self._storage, self._count = storage, 0

    def load(self) -> Run:
        record = fold(self._events())
        return Run(
            where=self._storage.url,
            status=_status_by_copy(record, self._storage),
            record=record,
            config=_config_of(record, self._storage),
            checkpoints=self._storage.url,
        )

    def read_new(self) -> list[Event]:
        events = self._events()
        self._count, new = len(events), events[self._count :]
        return new

    def is_running(self) -> bool:
        return is_in_use(self._storage)

    def _events(self) -> list[Event]:
        try:
            data = self._storage.read_bytes(JOURNAL)
        except NotStored:
            raise _no_journal(self._storage.url) from None
        return [parse_line(line) for line in data.splitlines()]


def journal_path(storage: Storage, runs_dir: Path) -> Path:
    """Tell where the journal of a job is: beside local checkpoints, for remote ones in runs_dir."""
    if storage.is_local:
        return Path(storage.url) / JOURNAL
    # By address and not by name: one name in two places is two jobs.
    digest = hashlib.sha256(storage.url.encode()).hexdigest()[:12]
    name = f"{re.sub(r'[^A-Za-z0-9.]+', '-', storage.url)[:60]}-{digest}"
    return runs_dir / "jobs" / name / JOURNAL


def source_of_job(
    storage: Storage, runs_dir: Path, folder: Path | None = None
) -> JournalSource | JournalCopySource:
    """Read a job by its journal here, or by the copy of it in its store; ``folder`` is the run's.

    Raises:
        UserError: there is no journal on this machine, and the storage is a folder.
    """
    path = journal_path(storage, runs_dir)
    if storage.is_local:
        if not path.is_file():
            raise _no_journal(storage.url)
        return JournalSource(path, storage, folder)
    if not path.is_file():
        return JournalCopySource(storage)
    with suppress(NotStored):
        # The journal here is ahead of its copy, unless the job has gone on elsewhere.
        if not path.read_bytes().startswith(storage.read_bytes(JOURNAL)):
            return JournalCopySource(storage)
    return JournalSource(path, storage, folder)


def _no_journal(url: str) -> UserError:
    return UserError(
        f"RUN must be a run folder, a job's folder or address of checkpoints, or {MONGO}ID, got "
        f"{url}, which has no {JOURNAL}; check the path."
    )


def _run_folder_of(record: JobRecord, journal: Path, storage: Storage) -> Path | None:
    """Find the run folder that a job names, where it is where it usually is."""
    runs_dir = Path("runs") if storage.is_local else journal.parent.parent.parent
    folder = runs_dir / str(record.run_id)
    info = read_json(folder / "info.json") if record.run_id else None
    return folder if isinstance(info, dict) and info.get("uid") == record.uid else None


def _config_of(record: JobRecord, storage: Storage) -> dict[str, Any]:
    """Read the settings beside the newest checkpoint."""
    for row in reversed(record.checkpoints):
        with suppress(NotStored, ValueError):
            found = json.loads(storage.read_bytes(f"{Path(row['path']).name}/config.json"))
            return dict(found)
    return {}


def _status(record: JobRecord, storage: Storage) -> str:
    if record.status == "running":
        return RUNNING if is_in_use(storage) else DEAD
    return record.status or UNKNOWN


def _status_by_copy(record: JobRecord, storage: Storage) -> str:
    """Judge by the claim, since the copy may be from before the end."""
    if read_owner(storage) is None:
        return ENDED if record.status in (None, "running") else record.status
    return RUNNING if is_in_use(storage) else DEAD
