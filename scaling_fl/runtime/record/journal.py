"""The journal of a job: append-only JSON lines, and the record that they fold into.

Every line is in the file whole or not at all: it is one ``write`` under a lock, and whoever
writes next cuts off what a killed writer left.
"""

import errno
import fcntl
import os
import shutil
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from scaling_fl.core.errors import UserError
from scaling_fl.core.json_text import json_text
from scaling_fl.runtime.record.events import Event, parse_line, payload_of
from scaling_fl.runtime.storage.base import Storage
from scaling_fl.runtime.storage.errors import NotAFile, diagnose
from scaling_fl.runtime.storage.plain_files import check_plain

JOURNAL = "journal.jsonl"

_BLOCK = 1 << 16


class JournalError(UserError, OSError):
    """The journal cannot be written; the message is one sentence."""


class Series(TypedDict):
    """The points of one metric, by step."""

    steps: list[int]
    values: list[float]
    timestamps: list[str]


class Journal:
    """The writing end; several processes may append to the same file."""

    def __init__(self, path: str | Path) -> None:
        """Open the journal for appending and cut off a torn last line.

        Raises:
            JournalError: the file cannot be opened for writing.
        """
        self.path = Path(path)
        self._threads = threading.Lock()
        with self._explained("opened"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(
                self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644
            )
            check_plain(self.path)
            with self._alone():
                _cut_torn_line(self._fd)

    def append(self, event: str, **fields: Any) -> None:
        """Append one event, by default with the time of now; it is on the disk when this returns.

        Raises:
            JournalError: the disk is full or refuses; what was written of the line is cut off.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json_text({"time": now, "event": event, **fields}).encode() + b"\n"
        with self._explained("written"), self._alone():
            # Another writer of this file may have been killed in the middle of its line.
            _cut_torn_line(self._fd)
            if os.write(self._fd, line) != len(line):
                _cut_torn_line(self._fd)
                raise OSError(errno.ENOSPC, "the disk took only a part of the line")
            os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        # flock keeps processes apart and the other lock threads, which share the descriptor.
        with self._threads:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    @contextmanager
    def _explained(self, verb: str) -> Iterator[None]:
        try:
            yield
        except NotAFile as error:
            raise JournalError(str(error)) from None
        except OSError as error:
            reason = diagnose(error)
            raise JournalError(
                f"the journal {self.path} cannot be {verb}: {reason.text}; {reason.remedy}."
            ) from error


def upload_journal(path: Path, storage: Storage, staging: Path) -> None:
    """Copy a journal into a storage, by way of a folder: it may grow while it is sent."""
    copy = staging / JOURNAL
    shutil.copyfile(path, copy)
    storage.put(copy, JOURNAL)


def _cut_torn_line(fd: int) -> None:
    """Shorten the file to its last line end; the tail need not be text at all."""
    size = end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - _BLOCK)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end != size:
        os.ftruncate(fd, end)


class JournalTail:
    """The reading end: it follows a journal that others write, whole lines only."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._offset = 0

    def read_new(self) -> list[Event]:
        """Read the events since the last call; none while the file does not exist."""
        try:
            check_plain(self.path)
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        # A torn tail is not kept: its writer may be dead and the next one will cut it off.
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [parse_line(line) for line in whole.splitlines()]


@dataclass
class JobRecord:
    """What a job has come to; a pure function of its events, in their order."""

    uid: str | None = None
    job_name: str | None = None
    run_id: str | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    """Of each attempt: start_time, status, hostname and pid, and stop_time once it has ended."""
    host: str | None = None
    pid: int | None = None
    started: str | None = None
    """When the last attempt began, and ``last_event`` when the job last journaled anything."""
    last_event: str | None = None
    resume_command: str | None = None
    num_rounds: int | None = None
    """Of the whole job, where its journal says so; in an older job, what its epsilon allowed."""
    status: str | None = None
    message: str | None = None
    stopped_by: str | None = None  # which rule ended the job early, as "setting=value (why)"
    metrics: dict[str, Series] = field(default_factory=dict)
    clients: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    partition: dict[str, Any] | None = None
    baseline: dict[str, Any] | None = None  # see ``reporting.learned``
    notes: list[dict[str, Any]] = field(default_factory=list)
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    digests: dict[int, str | None] = field(default_factory=dict)

    @property
    def attempts(self) -> int:
        return len(self.history)

    @property
    def last_round(self) -> int:
        return max(self.digests, default=0)

    @property
    def last_digest(self) -> str | None:
        return self.digests.get(self.last_round)

    def apply(self, event: Event) -> None:
        """Take in one event; a name from a later version of the program changes nothing."""
        before = self.last_event
        self.last_event = event.get("time") or self.last_event
        match event["event"]:
            case "start":
                self._start(event, before)
            case "resume":
                self.num_rounds, self.stopped_by = event.get("num_rounds"), event.get("stopped_by")
                self.baseline = event.get("baseline", self.baseline)
                self._drop_after(int(event["round"]))
            case "partition":
                self.partition = payload_of(event)
            case "round":
                self._round(event)
            case "checkpoint":
                self._checkpoint(event)
            case "note":
                self.notes.append(payload_of(event) | {"time": event.get("time", "")})
            case "end":
                self.status, self.message = event["status"], event.get("message")
                if self.history:
                    stopped = {"status": self.status, "stop_time": _naive(event.get("time"))}
                    self.history[-1] |= stopped

    def _start(self, event: Event, last_event: str | None) -> None:
        self.uid, self.job_name = event.get("uid"), event.get("job_name")
        self.run_id = event.get("run_id") or self.run_id
        self.host, self.pid, self.started = event.get("host"), event.get("pid"), event.get("time")
        self.resume_command = event.get("resume_command")
        if self.history and self.history[-1].get("status") == "RUNNING":
            self.history[-1] |= {"status": "DIED", "stop_time": _naive(last_event)}
        start_time = event.get("start_time") or _naive(event.get("time"))
        attempt = {"start_time": start_time, "status": "RUNNING"}
        self.history.append(attempt | {"hostname": self.host, "pid": self.pid})
        self.status, self.message, self.stopped_by = "running", None, None

    def _round(self, event: Event) -> None:
        number = int(event["round"])
        if number in self.digests:
            # The same round again replaces its rows: nothing is ever counted twice.
            self.clients = [row for row in self.clients if row["round"] != number]
            self.failures = [row for row in self.failures if row["round"] != number]
        is_regained = number < self.last_round
        self.digests[number] = event.get("digest")
        self.stopped_by = event.get("stopped_by")
        self.clients.extend(self._named(number, event.get("clients", [])))
        self.failures.extend(self._named(number, event.get("failures", [])))
        if is_regained:
            for rows in (self.clients, self.failures):
                rows.sort(key=lambda row: int(row["round"]))
        for name, value in event.get("metrics", {}).items():
            series = self.metrics.setdefault(name, Series(steps=[], values=[], timestamps=[]))
            _set_point(series, number, value, event.get("time", ""))

    def _named(self, number: int, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Add the round to rows about clients, and their names where clients have names."""
        given = enumerate((self.partition or {}).get("client_names") or ())
        names = {client: {"name": name} for client, name in given}
        return [{"round": number, **row, **names.get(row.get("client", -1), {})} for row in rows]

    def _checkpoint(self, event: Event) -> None:
        kept = [row for row in self.checkpoints if row["round"] != event["round"]]
        self.checkpoints = [*kept, payload_of(event)]

    def _drop_after(self, number: int) -> None:
        for rows in (self.clients, self.failures, self.checkpoints):
            rows[:] = [row for row in rows if row["round"] <= number]
        self.digests = {step: value for step, value in self.digests.items() if step <= number}
        for series in self.metrics.values():
            _cut_after(series, number)
        self.metrics = {name: series for name, series in self.metrics.items() if series["steps"]}


def _naive(time: str | None) -> str | None:
    """Write a time as Sacred does: in UTC, without saying so."""
    if not time:
        return None
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return time
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() if moment.tzinfo else time


def _set_point(series: Series, step: int, value: float, time: str) -> None:
    """Put the point where its step belongs; there is one point for a step."""
    index = bisect_left(series["steps"], step)
    end = index + (series["steps"][index : index + 1] == [step])
    series["steps"][index:end] = [step]
    series["values"][index:end] = [value]
    series["timestamps"][index:end] = [time]


def _cut_after(series: Series, step: int) -> None:
    end = bisect_left(series["steps"], step + 1)
    del series["steps"][end:], series["values"][end:], series["timestamps"][end:]


def fold(events: Iterable[Event]) -> JobRecord:
    """Fold events into the record of their job."""
    record = JobRecord()
    for event in events:
        record.apply(event)
    return record
