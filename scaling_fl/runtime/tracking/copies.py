"""A run read from what was made of its journal: its run folder, or its documents in MongoDB."""

import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname
from typing import Any

from scaling_fl.core.errors import UserError
from scaling_fl.core.json_text import number
from scaling_fl.runtime.record.events import Event
from scaling_fl.runtime.record.journal import JobRecord
from scaling_fl.runtime.storage.processes import process_start
from scaling_fl.runtime.tracking.run_database import MONGO, RunDatabase
from scaling_fl.runtime.tracking.run_files import read_clients
from scaling_fl.runtime.tracking.runs import DEAD, RUNNING, UNKNOWN, Run, RunSource, read_json

STALE_SECONDS = 60.0
"""Silence after which a run that only its record tells of counts as dead; it beats every 10 s."""
_SKIPPED = re.compile(r"\[the first ([\d,]+) bytes are in cout\.txt\]\n")


class FolderSource(RunSource):
    """A run folder alone, where the journal that it was made from is not at hand."""

    poll_seconds, tells_its_end = 1.0, True

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def load(self, *, with_clients: bool = True) -> Run:
        """Read all of the run; what its clients did, which takes the longest, may be left out."""
        entry, info = read_json(self._path / "run.json"), read_json(self._path / "info.json")
        config = read_json(self._path / "config.json") or {}
        clients = self._path / "clients.csv"
        try:
            record = _record_of_copy(self._path.name, entry, info)
        except (LookupError, TypeError, AttributeError):
            raise UserError(
                f"{self._path} is not the record of a run of this project, by its info.json; give "
                "the folder of the checkpoints."
            ) from None
        record.metrics = _metrics(read_json(self._path / "metrics.json") or {})
        if with_clients and clients.is_file():
            record.clients = read_clients(clients.read_text())
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
        run = _run_of_document(document, self._database.metrics([self._number]))
        clients = self._database.artifact(document, "clients.csv")
        run.record.clients = read_clients(clients.decode()) if clients else []
        return run

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


def runs_of_database(numbers: Sequence[int], *, with_clients: bool) -> list[Run]:
    """Read many runs of the database over one connection; those that it lacks are left out.

    Raises:
        UserError: it cannot be reached.
    """
    database = RunDatabase()
    with database.kept_open():
        documents, metrics = database.documents(numbers), database.metrics(numbers)
        runs = [_run_of_document(document, metrics) for document in documents]
        for run, document in zip(runs, documents, strict=True):
            if with_clients and (data := database.artifact(document, "clients.csv")):
                run.record.clients = read_clients(data.decode())
    return runs


def _run_of_document(document: Mapping[str, Any], metrics: Mapping[int, Any]) -> Run:
    number, config = int(document["_id"]), document.get("config", {})
    record = _record_of_copy(str(number), document, document.get("info", {}))
    record.metrics = metrics.get(number, {})
    return Run(
        where=f"{MONGO}{number}",
        status=_status_of_copy(record),
        record=record,
        config=config,
        checkpoints=_last_place(record) or config.get("checkpoints_dir"),
    )


def true_status(run_dir: Path) -> str:
    """Tell from its folder how a run is: DEAD when it only says that it runs.

    Raises:
        OSError, ValueError: the folder holds no readable run.
    """
    entry, info = (json.loads((run_dir / name).read_bytes()) for name in ("run.json", "info.json"))
    return _status_of_copy(_record_of_copy(run_dir.name, entry, info))


def _last_place(record: JobRecord) -> str | None:
    return record.checkpoints[-1]["path"].rpartition("/")[0] if record.checkpoints else None


def _lines(text: str) -> list[Event]:
    return [{"event": "line", "text": line} for line in text.splitlines()]


def _metrics(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {**series, "values": [number(value) for value in series["values"]]}
        for name, series in stored.items()
    }


def _record_of_copy(run_id: str, entry: Mapping[str, Any], info: Mapping[str, Any]) -> JobRecord:
    """Make a record from what a run folder, or a document made from it, says."""
    attempts = info.get("attempts") or [{}]
    digests = {info["last_round"]: info.get("last_digest")} if info.get("last_round") else {}
    checkpoints = [{**row, "path": str(row["path"])} for row in info.get("checkpoints", [])]
    return JobRecord(
        uid=info.get("uid"),
        job_name=info.get("job_name"),
        run_id=run_id,
        history=[dict(attempt) for attempt in attempts],
        host=attempts[-1].get("hostname"),
        pid=attempts[-1].get("pid"),
        started=_iso(attempts[-1].get("start_time")),
        last_event=_iso(entry.get("heartbeat")),
        status=entry.get("status"),
        stopped_by=info.get("stopped_by"),
        failures=list(info.get("failures", [])),
        partition=info.get("partition"),
        baseline=info.get("baseline"),
        notes=list(info.get("notes", [])),
        checkpoints=checkpoints,
        digests=digests,
    )


def _iso(moment: Any) -> str | None:
    """Write a time of Sacred or MongoDB, which are in UTC without saying so, as events have it."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return moment.replace(tzinfo=moment.tzinfo or UTC).isoformat() if moment else None


def _status_of_copy(record: JobRecord) -> str:
    if record.status != RUNNING:
        return record.status or UNKNOWN
    if record.host == gethostname() and record.pid and process_start(record.pid) is None:
        return DEAD
    last_event = datetime.fromisoformat(record.last_event).timestamp() if record.last_event else 0.0
    return RUNNING if time.time() - last_event < STALE_SECONDS else DEAD
