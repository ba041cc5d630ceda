"""Where a run is read from, once or again and again: its journal, its folder, or MongoDB."""

import hashlib
import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname
from typing import Any

from scaling_fl.core.errors import UserError
from scaling_fl.runtime.record.journal import (
    JOURNAL,
    Event,
    JobRecord,
    JournalTail,
    fold,
    parse_line,
)
from scaling_fl.runtime.record.live import read_progress
from scaling_fl.runtime.storage import NotStored, Storage, StorageError, open_storage
from scaling_fl.runtime.storage.base import explained
from scaling_fl.runtime.storage.claim import is_in_use, read_owner
from scaling_fl.runtime.storage.processes import process_start
from scaling_fl.runtime.tracking.run_database import MONGO, RunDatabase
from scaling_fl.runtime.tracking.run_files import read_clients
from scaling_fl.runtime.tracking.runs import (
    DEAD,
    ENDED,
    RUNNING,
    UNKNOWN,
    Run,
    from_here,
    is_run_folder,
    locate,
)

STALE_SECONDS = 60.0
"""Silence after which a run that only its record tells of counts as dead; it beats every 10 s."""
_SKIPPED = re.compile(r"\[the first ([\d,]+) bytes are in cout\.txt\]\n")


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
            record.heard = max(record.heard or "", progress["time"])
        self._status = record.status
        folder = self._folder or _run_folder_of(record, self._path, self._storage)
        config = _read_json(folder / "config.json") if folder else None
        return Run(
            where=from_here(str(folder or self._path.parent)),
            status=_status(record, self._storage),
            record=record,
            config=config or _config_of(record, self._storage),
            checkpoints=self._storage.url,
            folder=folder,
            journal=self._path,
        )

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


class FolderSource(RunSource):
    """A run folder alone, where the journal that it was made from is not at hand."""

    poll_seconds, tells_its_end = 1.0, True

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def load(self) -> Run:
        entry, info = _read_json(self._path / "run.json"), _read_json(self._path / "info.json")
        config = _read_json(self._path / "config.json") or {}
        clients = self._path / "clients.csv"
        try:
            record = _record_of_copy(self._path.name, entry, info)
        except (LookupError, TypeError, AttributeError):
            raise UserError(
                f"{self._path} is not the record of a run of this project, by its info.json; give "
                "the folder of the checkpoints."
            ) from None
        record.metrics = _read_json(self._path / "metrics.json") or {}
        record.clients = read_clients(clients.read_text()) if clients.is_file() else []
        return Run(
            where=str(self._path),
            status=_status_of_copy(record),
            record=record,
            config=config,
            checkpoints=_last_place(record) or config.get("checkpoints_dir"),
            folder=self._path,
        )

    def read_new(self) -> list[Event]:
        with suppress(FileNotFoundError), (self._path / "cout.txt").open("rb") as file:
            file.seek(self._offset)
            data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._offset += len(whole)
            return _lines(whole.decode(errors="replace"))
        return []

    def is_running(self) -> bool:
        return self.load().status == RUNNING


class DatabaseSource(RunSource):
    """A run in MongoDB, which is up to date to some seconds while its database can be reached."""

    poll_seconds, tells_its_end = 3.0, True

    def __init__(self, number: int) -> None:
        self._database, self._number, self._read = RunDatabase(), number, 0

    def load(self) -> Run:
        document = self._database.document(self._number)
        info = document.get("info", {})
        record = _record_of_copy(str(self._number), document, info)
        record.metrics = self._database.metrics(self._number)  # type: ignore[assignment]
        clients = self._database.artifact(document, "clients.csv")
        record.clients = read_clients(clients.decode()) if clients else []
        config = document.get("config", {})
        return Run(
            where=f"{MONGO}{self._number}",
            status=_status_of_copy(record),
            record=record,
            config=config,
            checkpoints=_last_place(record) or config.get("checkpoints_dir"),
        )

    def read_new(self) -> list[Event]:
        text = self._database.document(self._number, "captured_out").get("captured_out", "")
        skipped = _SKIPPED.match(text)
        # A long output has lost its beginning, which may have been read before or not.
        start = int(skipped[1].replace(",", "")) if skipped else 0
        data = text[skipped.end() if skipped else 0 :].encode()
        new = data[max(0, self._read - start) :]
        whole = new[: new.rfind(b"\n") + 1]
        self._read = max(self._read, start) + len(whole)
        return _lines(whole.decode(errors="replace"))

    def is_running(self) -> bool:
        fields = ("status", "heartbeat", "info.attempts")
        document = self._database.document(self._number, *fields)
        record = _record_of_copy(str(self._number), document, document.get("info", {}))
        return _status_of_copy(record) == RUNNING


def open_source(place: str, option: str = "RUN") -> RunSource:
    """Find a run, and the best way to read it.

    Raises:
        UserError: there is none; it was given as ``option``.
    """
    if place.startswith(MONGO):
        number = place.removeprefix(MONGO)
        if not number.isdecimal():
            raise UserError(f"{option} must be {MONGO} and a number, got {place}; check it.")
        return DatabaseSource(int(number))
    path = Path(place).expanduser()
    if is_run_folder(path):
        return _source_of_folder(path)
    url, _ = locate(place, option)
    return _source_of_job(open_storage(url), Path("runs"), None) or _refuse(url)


def open_run(place: str, option: str = "RUN") -> Run:
    """Read a run as it is now.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    return open_source(place, option).load()


def journal_path(storage: Storage, runs_dir: Path) -> Path:
    """Tell where the journal of a job is: beside local checkpoints, for remote ones in runs_dir."""
    if storage.is_local:
        return Path(storage.url) / JOURNAL
    # By address and not by name: one name in two places is two jobs.
    digest = hashlib.sha256(storage.url.encode()).hexdigest()[:12]
    name = f"{re.sub(r'[^A-Za-z0-9.]+', '-', storage.url)[:60]}-{digest}"
    return runs_dir / "jobs" / name / JOURNAL


def _source_of_folder(path: Path) -> RunSource:
    """Prefer the journal, if it is here and that of this run."""
    url = (_read_json(path / "config.json") or {}).get("checkpoints_dir")
    info = _read_json(path / "info.json")
    if isinstance(url, str) and isinstance(info, dict):
        with suppress(StorageError):
            source = _source_of_job(open_storage(url), path.parent, path)
            if isinstance(source, JournalSource) and source.load().record.uid == info.get("uid"):
                return source
    return FolderSource(path)


def _source_of_job(storage: Storage, runs_dir: Path, folder: Path | None) -> RunSource | None:
    path = journal_path(storage, runs_dir)
    if storage.is_local:
        return JournalSource(path, storage, folder) if path.is_file() else None
    if not path.is_file():
        return JournalCopySource(storage)
    with suppress(NotStored):
        # The journal here is ahead of its copy, unless the job has gone on elsewhere.
        if not path.read_bytes().startswith(storage.read_bytes(JOURNAL)):
            return JournalCopySource(storage)
    return JournalSource(path, storage, folder)


def _refuse(url: str) -> RunSource:
    raise _no_journal(url)


def _no_journal(url: str) -> UserError:
    return UserError(
        f"RUN must be a run folder, a job's folder or address of checkpoints, or {MONGO}ID, got "
        f"{url}, which has no {JOURNAL}; check the path."
    )


def _run_folder_of(record: JobRecord, journal: Path, storage: Storage) -> Path | None:
    """Find the run folder that a job names, where it is where it usually is."""
    runs_dir = Path("runs") if storage.is_local else journal.parent.parent.parent
    folder = runs_dir / str(record.run_id)
    info = _read_json(folder / "info.json") if record.run_id else None
    return folder if isinstance(info, dict) and info.get("uid") == record.uid else None


def _config_of(record: JobRecord, storage: Storage) -> dict[str, Any]:
    """Read the settings beside the newest checkpoint."""
    for row in reversed(record.checkpoints):
        with suppress(NotStored, ValueError):
            found = json.loads(storage.read_bytes(f"{Path(row['path']).name}/config.json"))
            return dict(found)
    return {}


def _last_place(record: JobRecord) -> str | None:
    return record.checkpoints[-1]["path"].rpartition("/")[0] if record.checkpoints else None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _lines(text: str) -> list[Event]:
    return [{"event": "line", "text": line} for line in text.splitlines()]


def _record_of_copy(run_id: str, entry: Mapping[str, Any], info: Mapping[str, Any]) -> JobRecord:
    """Make a record from what a run folder, or a document made from it, says."""
    attempts = info.get("attempts") or [{}]
    digests = {info["last_round"]: info.get("last_digest")} if info.get("last_round") else {}
    checkpoints = [{**row, "path": str(row["path"])} for row in info.get("checkpoints", [])]
    return JobRecord(
        uid=info.get("uid"),
        job_name=info.get("job_name"),
        run_id=run_id,
        attempts=len(attempts),
        host=attempts[-1].get("hostname"),
        pid=attempts[-1].get("pid"),
        started=_iso(attempts[-1].get("start_time")),
        heard=_iso(entry.get("heartbeat")),
        status=entry.get("status"),
        failures=list(info.get("failures", [])),
        partition=info.get("partition"),
        notes=list(info.get("notes", [])),
        checkpoints=checkpoints,
        digests=digests,
    )


def _iso(moment: Any) -> str | None:
    """Write a time of Sacred or MongoDB, which are in UTC without saying so, as events have it."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return moment.replace(tzinfo=moment.tzinfo or UTC).isoformat() if moment else None


def _status(record: JobRecord, storage: Storage) -> str:
    if record.status == "running":
        return RUNNING if is_in_use(storage) else DEAD
    return record.status or UNKNOWN


def _status_by_copy(record: JobRecord, storage: Storage) -> str:
    """Judge by the claim, since the copy is from before the end, however that was."""
    if read_owner(storage) is None:
        return ENDED
    return RUNNING if is_in_use(storage) else DEAD


def _status_of_copy(record: JobRecord) -> str:
    if record.status != RUNNING:
        return record.status or UNKNOWN
    if record.host == gethostname() and record.pid and process_start(record.pid) is None:
        return DEAD
    heard = datetime.fromisoformat(record.heard).timestamp() if record.heard else 0.0
    return RUNNING if time.time() - heard < STALE_SECONDS else DEAD
