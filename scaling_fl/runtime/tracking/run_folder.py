"""The tracked run on disk, in the layout of Sacred's FileStorageObserver.

Every file is replaced as a whole, so a kill at any moment leaves a record that can be read. The
folder is the record; a database, where there is one, is a copy of it (see ``follower``).
"""

import os
import shutil
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from scaling_fl.core.errors import UserError
from scaling_fl.runtime.record.journal import JobRecord
from scaling_fl.runtime.redaction import secrets_of
from scaling_fl.runtime.storage.base import explained
from scaling_fl.runtime.tracking.captured_output import CapturedOutput
from scaling_fl.runtime.tracking.record_files import RecordFiles
from scaling_fl.runtime.tracking.run_files import (
    TABLE_NAMES,
    commit_of_image,
    place_folder,
    read_run,
    replace_files,
)
from scaling_fl.runtime.tracking.sacred_files import SacredFiles
from scaling_fl.runtime.tracking.trouble import Trouble

MAX_LISTED = 1000
RESERVE, RESERVED_BYTES = ".reserve", 1 << 18
FILE_PRIORITY = 40
MADE_ANEW = "made_anew"
"""Says in info.json how much of a folder was taken from the journal, when a job came here."""
EARLIER = "earlier.json"
"""What the database had of the run before that."""


class RunFolder(SacredFiles):
    """Write one run to ``runs_dir/<id>``; a run that is resumed goes on in its own folder.

    The folder is reopened when ``run_id`` names one that carries the same ``uid``; when it was
    deleted, or belongs to another job by now, a new one is made under the same ``uid``. With
    ``has_events`` it also holds the files that TensorBoard reads.
    """

    def __init__(
        self,
        runs_dir: str | os.PathLike[str],
        *,
        run_id: str | int | None = None,
        uid: str,
        job_name: str,
        secrets: Iterable[str] | None = None,
        has_events: bool = False,
    ) -> None:
        # Sacred serves high priorities first, and the first observer names the run.
        super().__init__(Path(runs_dir), priority=FILE_PRIORITY)
        self._secrets = tuple(secrets_of(os.environ) if secrets is None else secrets)
        self.uid, self.job_name, self._wanted_id = uid, job_name, str(run_id or "")
        self.run_entry: Any = None
        self._ex_info: Mapping[str, Any] = {}
        self._lock = threading.RLock()
        self._final_status = "COMPLETED"
        self._attempts: list[dict[str, Any]] = []
        self._facts: dict[str, Any] = {}
        self._output = CapturedOutput(self._secrets)
        self.trouble = Trouble(self.log)
        self._files = RecordFiles(has_events=has_events)

    @property
    def start_time(self) -> str:
        """When this attempt began."""
        return str(self._attempts[-1]["start_time"])

    @property
    def run_id(self) -> str:
        return self.path.name

    # The events of Sacred

    def started_event(
        self,
        ex_info: Mapping[str, Any],
        command: str,
        host_info: Mapping[str, Any],
        start_time: datetime,
        config: Mapping[str, Any],
        meta_info: Mapping[str, Any],
        _id: str | None,
    ) -> str | None:
        """Take in what Sacred knows of the start; ``open`` records it."""
        self._ex_info = ex_info
        self.run_entry = {
            "command": command,
            "host": host_info,
            "start_time": start_time,
            "meta": meta_info,
            "status": "RUNNING",
            "heartbeat": start_time,
        }
        self.config = self._plain(config)
        return self._wanted_id or None

    def open(self, history: Sequence[Mapping[str, Any]] = (), output: str = "") -> None:
        """Record the start, in the folder of the earlier starts or in a new one.

        Until then nothing is written, so a start that is refused leaves a record as it was.
        ``history`` and ``output`` are the attempts and the lines of the job so far; a new folder
        begins with them.

        Raises:
            StorageError: the folder cannot be written; an earlier record is as it was.
        """
        with self._lock, explained(f"write the record of the run to {self.basedir}"):
            folder, earlier = self._earlier()
            if not folder and history:
                self._attempts = [dict(attempt) for attempt in history]
                earlier["start_time"] = history[0]["start_time"]
                self._facts[MADE_ANEW] = {"attempts": len(history), "output": len(output.encode())}
            start_time = self.run_entry["start_time"]
            attempt = {"start_time": start_time.isoformat(), "status": "RUNNING"}
            self._attempts.append(attempt | {"hostname": socket.gethostname(), "pid": os.getpid()})
            experiment = dict(self._ex_info) | {"sources": self.save_sources(self._ex_info)}
            repositories = self._ex_info["repositories"]
            experiment["repositories"] = repositories or commit_of_image(os.environ)
            kept = {
                "start_time": earlier.get("start_time", start_time),
                "resources": earlier.get("resources", []),
                "artifacts": earlier.get("artifacts", []),
            }
            self.run_entry = self._plain({"experiment": experiment} | self.run_entry | kept)
            if folder:
                self._save_start(folder)
            else:
                folder = self._create(output)
            self.dir = str(folder)
            self._output.open(folder / "cout.txt")

    def heartbeat_event(
        self, info: Mapping[str, Any], captured_out: str, beat_time: datetime, result: Any
    ) -> None:
        if self.dir is None:
            return  # The start is not on record, and may never be.
        with self.told("run.json"):
            self._facts.update(self._plain(info))
            self.run_entry["heartbeat"] = beat_time.isoformat()
            self.run_entry["result"] = self._plain(result)
            self._save_run()

    def completed_event(self, stop_time: datetime, result: Any) -> None:
        self._finish(self._final_status, stop_time.isoformat(), result=self._plain(result))

    def interrupted_event(self, interrupt_time: datetime, status: str) -> None:
        self._finish(status, interrupt_time.isoformat())

    def failed_event(self, fail_time: datetime, fail_trace: Sequence[str]) -> None:
        self._finish("FAILED", fail_time.isoformat(), fail_trace=self._plain(fail_trace))

    def resource_event(self, filename: str) -> None:
        if self.dir is None:
            return
        with self.told(filename):
            entry = [filename, str(self.find_or_save(filename, Path(self.resource_dir)))]
            if entry not in self.run_entry["resources"]:
                self.run_entry["resources"].append(entry)
            self.save_json(self.run_entry, "run.json")

    def artifact_event(
        self,
        name: str,
        filename: str,
        metadata: Mapping[str, Any] | None = None,
        content_type: str | None = None,
    ) -> None:
        if self.dir is None:
            return
        with self.told(name):
            self.save_file(filename, name)
            self._list_artifact(name)

    def log_metrics(self, metrics_by_name: Mapping[str, Any], info: Mapping[str, Any]) -> None:
        """Do nothing: metrics come from the journal, through ``refresh``."""

    # What the run itself adds

    def mark(self, status: str) -> None:
        """Choose the status, such as DEGRADED, with which a run that completes is recorded."""
        self._final_status = status

    def log(self, text: str) -> None:
        """Append a line to cout.txt at once; after MAX_OUTPUT_BYTES only a note says so."""
        self._output.add(text)

    def refresh(self, record: JobRecord) -> None:
        """Write info.json, metrics.json, the tables and events from the journal's record.

        A disk that is full stops no run: the journal has everything, and the next ``refresh``
        writes all of it again.
        """
        with self.told("metrics and tables"):
            self._facts |= {
                "last_round": record.last_round,
                "last_digest": record.last_digest,
                "stopped_by": record.stopped_by,
                "partition": record.partition,
                "baseline": record.baseline,
                "checkpoints": self._plain(record.checkpoints[-MAX_LISTED:]),
                "failures": self._plain(record.failures[-MAX_LISTED:]),
                "notes": self._plain(record.notes[-MAX_LISTED:]),
            }
            self._files.write(self.path, record)
            for name in TABLE_NAMES:
                self._list_artifact(name)
            self.save_json(self._info(), "info.json")

    @contextmanager
    def told(self, name: str) -> Iterator[None]:
        """Write a file of the record; that it cannot be written is told, and stops no run."""
        # Sacred drops an observer for good after one exception.
        with self._lock, self.trouble.told(name, self.path):
            yield

    def _earlier(self) -> tuple[Path | None, dict[str, Any]]:
        """Find the folder of the earlier attempts and what its run.json says, if there is one."""
        folder = Path(self.basedir) / self._wanted_id
        if not self._wanted_id or not (found := read_run(folder, self.uid)):
            return None, {}
        entry, self._facts = found
        self._attempts = self._facts.pop("attempts", [])
        if self._attempts and self._attempts[-1].get("status") == "RUNNING":
            self._attempts[-1] |= {"status": "DIED", "stop_time": entry.get("heartbeat")}
        return folder, entry

    def _create(self, output: str) -> Path:
        """Fill a folder beside the runs, then rename it: a run's folder is whole from the start."""
        staged = Path(self.basedir) / f".new-{self.uid}"
        shutil.rmtree(staged, ignore_errors=True)
        try:
            staged.mkdir(parents=True)
            (staged / "cout.txt").write_text(output)
            self._save_start(staged)
            return place_folder(staged, wanted_name=self._wanted_id or None)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise

    def _save_start(self, folder: Path) -> None:
        (folder / "cout.txt").touch()
        values = {"config.json": self.config, "info.json": self._info(), "run.json": self.run_entry}
        files = {folder / name: self._json(value) for name, value in values.items()}
        replace_files({folder / RESERVE: bytes(RESERVED_BYTES)} | files)

    def _save_run(self) -> None:
        self.save_json(self.run_entry, "run.json")
        self.save_json(self._info(), "info.json")

    def _info(self) -> dict[str, Any]:
        own = {"uid": self.uid, "job_name": self.job_name, "attempts": self._attempts}
        return self._facts | own

    def _finish(self, status: str, stop_time: str | None, **fields: Any) -> None:
        if self.dir is None:
            return
        with self.told("run.json"):
            ending = {"status": status, "stop_time": stop_time}
            self._attempts[-1] |= ending
            self.run_entry.update(ending, **fields)
            # There is room set aside, so that a full disk, too, says how the run ended.
            (self.path / RESERVE).unlink(missing_ok=True)
            self._save_run()

    def complete(self, record: JobRecord) -> bool:
        """Write again, from a journal, what the folder lacks; returns whether it lacked something.

        Raises:
            UserError: it cannot be written.
        """
        folder, self.run_entry = self._earlier()
        if folder is None:
            return False
        self.dir, is_unended = str(folder), self.run_entry.get("status") == "RUNNING"
        ended = record.status if is_unended and record.status != "running" else None
        if not ended and self._files.are_current(folder, record):
            return False
        self.refresh(record)
        if ended and record.history:
            self._finish(ended, record.history[-1].get("stop_time"))
        if self.trouble.missing:
            raise UserError(self.trouble.sentence(folder))
        return True

    def _list_artifact(self, name: str) -> None:
        if name not in self.run_entry["artifacts"]:
            self.run_entry["artifacts"].append(name)
            self.save_json(self.run_entry, "run.json")
