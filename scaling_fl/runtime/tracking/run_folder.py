"""The tracked run on disk, in the layout of Sacred's FileStorageObserver.

Every file is replaced as a whole, so a kill at any moment leaves a record that can be read. The
folder is the record; a database, where there is one, is a copy of it (see ``mirror``).
"""

import json
import os
import shutil
import socket
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from scaling_fl.runtime.record.journal import JobRecord
from scaling_fl.runtime.redaction import redact, secrets_of
from scaling_fl.runtime.tracking.run_files import (
    commit_of_image,
    copy_file,
    place_folder,
    plain,
    read_run,
    replace_file,
    size_of,
    store_by_content,
    tables,
)

with warnings.catch_warnings():
    # Sacred imports pkg_resources, which warns of its own end at every start.
    warnings.filterwarnings("ignore", message="pkg_resources")
    from sacred.observers import FileStorageObserver

OWN_FILES = {"run.json", "config.json", "info.json", "metrics.json", "cout.txt", "mirror.json"}
MAX_OUTPUT_BYTES = 10_000_000
MAX_LISTED = 1000
FILE_PRIORITY = 40


class RunFolder(FileStorageObserver):
    """Write one run to ``runs_dir/<id>``; a run that is resumed goes on in its own folder.

    The folder is reopened when ``run_id`` names one that carries the same ``uid``; when it was
    deleted, or belongs to another job by now, a new one is made under the same ``uid``.
    """

    def __init__(
        self,
        runs_dir: str | os.PathLike[str],
        *,
        run_id: str | int | None = None,
        uid: str,
        job_name: str,
        secrets: Iterable[str] | None = None,
    ) -> None:
        # Sacred serves high priorities first, and the first observer names the run.
        super().__init__(Path(runs_dir), priority=FILE_PRIORITY)
        self.uid, self.job_name, self._wanted_id = uid, job_name, str(run_id or "")
        self._secrets = tuple(secrets_of(os.environ) if secrets is None else secrets)
        self.run_entry: Any = None
        self._lock = threading.RLock()
        self._final_status = "COMPLETED"
        self._attempts: list[dict[str, Any]] = []
        self._facts: dict[str, Any] = {}
        self._early_lines: list[str] = []
        self._output_bytes = 0
        self._failing: set[str] = set()
        self._tables = tables()

    @property
    def path(self) -> Path:
        """The folder of this run; known once the run has started."""
        if self.dir is None:
            raise RuntimeError("the run folder is known only once the run has started")
        return Path(self.dir)

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
    ) -> str:
        with self._lock:
            earlier = self._reopen()
            attempt = {"start_time": start_time.isoformat(), "status": "RUNNING"}
            self._attempts.append(attempt | {"hostname": socket.gethostname(), "pid": os.getpid()})
            experiment = dict(ex_info) | {"sources": self.save_sources(ex_info)}
            experiment["repositories"] = ex_info["repositories"] or commit_of_image(os.environ)
            self.run_entry = self._plain(
                {
                    "experiment": experiment,
                    "command": command,
                    "host": host_info,
                    "start_time": earlier.get("start_time", start_time),
                    "meta": meta_info,
                    "status": "RUNNING",
                    "resources": earlier.get("resources", []),
                    "artifacts": earlier.get("artifacts", []),
                    "heartbeat": start_time,
                }
            )
            self.config = self._plain(config)
            if self.dir is None:
                self._create()
            else:
                self._save_start(self.path)
            self._output_bytes = size_of(self.path / "cout.txt")
            lines, self._early_lines = self._early_lines, []
        for line in lines:
            self.log(line)
        return self.run_id

    def heartbeat_event(
        self, info: Mapping[str, Any], captured_out: str, beat_time: datetime, result: Any
    ) -> None:
        with self._lock, self._reported("the heartbeat"):
            self._facts.update(self._plain(info))
            self.run_entry["heartbeat"] = beat_time.isoformat()
            self.run_entry["result"] = self._plain(result)
            self._save_run()

    def completed_event(self, stop_time: datetime, result: Any) -> None:
        self._finish(self._final_status, stop_time, result=self._plain(result))

    def interrupted_event(self, interrupt_time: datetime, status: str) -> None:
        self._finish(status, interrupt_time)

    def failed_event(self, fail_time: datetime, fail_trace: Sequence[str]) -> None:
        self._finish("FAILED", fail_time, fail_trace=self._plain(fail_trace))

    def resource_event(self, filename: str) -> None:
        with self._lock, self._reported(f"the resource {filename}"):
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
        with self._lock, self._reported(f"the artifact {name}"):
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
        with self._lock:
            if self.dir is None:
                self._early_lines.append(text)
                return
            data = (redact(text, self._secrets) + "\n").encode("utf-8", "replace")
            if self._output_bytes >= MAX_OUTPUT_BYTES:
                return
            if self._output_bytes + len(data) > MAX_OUTPUT_BYTES:
                data = f"[output beyond {MAX_OUTPUT_BYTES:,} bytes is not kept]\n".encode()
                self._output_bytes = MAX_OUTPUT_BYTES
            self._output_bytes += len(data)
            # Output that cannot be kept is no reason to stop a run.
            with suppress(OSError), open(self.path / "cout.txt", "ab", buffering=0) as file:
                file.write(data)

    def refresh(self, record: JobRecord) -> None:
        """Write metrics.json, clients.csv, comm_log.csv and info.json from the journal's record.

        A disk that is full stops no run: the journal has everything, and the next ``refresh``
        writes all of it again.
        """
        with self._lock, self._reported("the record"):
            self._facts |= {
                "last_round": record.last_round,
                "last_digest": record.last_digest,
                "partition": record.partition,
                "checkpoints": self._plain(record.checkpoints[-MAX_LISTED:]),
                "failures": self._plain(record.failures[-MAX_LISTED:]),
                "notes": self._plain(record.notes[-MAX_LISTED:]),
            }
            # As JSON gave it, and without indentation: long curves are written every round.
            replace_file(self.path / "metrics.json", json.dumps(record.metrics).encode())
            for name, table in self._tables.items():
                replace_file(self.path / name, table.render(record.clients))
                self._list_artifact(name)
            self._save_info()

    # Files

    def save_json(self, obj: object, filename: str) -> None:
        text = json.dumps(self._plain(obj), sort_keys=True, indent=2)
        replace_file(self.path / filename, text.encode())

    def save_file(self, filename: str, target_name: str | None = None) -> None:
        name = target_name or os.path.basename(filename)
        folder, target = self.path.resolve(), (self.path / name).resolve()
        if folder not in target.parents or str(target.relative_to(folder)) in OWN_FILES:
            raise ValueError(
                f"an artifact's name must be a path inside the run folder other than "
                f"{', '.join(sorted(OWN_FILES))}, got {name!r}; choose another name."
            )
        if target != Path(filename).resolve():
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_file(Path(filename), target)

    def find_or_save(self, filename: str | os.PathLike[str], store_dir: Path) -> Path:
        return store_by_content(Path(filename), store_dir)

    def save_sources(self, ex_info: Mapping[str, Any]) -> list[list[str]]:
        base, store = Path(ex_info["base_dir"]), Path(self.source_dir)
        stored = {name: self.find_or_save(base / name, store) for name, _ in ex_info["sources"]}
        return [[name, os.path.relpath(path, self.basedir)] for name, path in stored.items()]

    @contextmanager
    def _reported(self, what: str) -> Iterator[None]:
        # Sacred drops an observer for good after one exception: a full disk or a missing file must
        # not cost the rest of the record.
        try:
            yield
        except OSError as error:
            if what not in self._failing:
                self.log(f"warning: {what} could not be stored: {error}")
            self._failing.add(what)
        else:
            self._failing.discard(what)

    def _plain(self, value: object) -> Any:
        return plain(value, lambda text: redact(text, self._secrets))

    def _reopen(self) -> dict[str, Any]:
        """Return what the folder of an earlier attempt says, and take it over; or an empty dict."""
        folder = Path(self.basedir) / self._wanted_id
        if not self._wanted_id or not (found := read_run(folder, self.uid)):
            return {}
        entry, self._facts = found
        self.dir, self._attempts = str(folder), self._facts.pop("attempts", [])
        if self._attempts and self._attempts[-1].get("status") == "RUNNING":
            self._attempts[-1] |= {"status": "DIED", "stop_time": entry.get("heartbeat")}
        return entry

    def _create(self) -> None:
        """Fill a folder beside the runs, then rename it: a run's folder is whole from the start."""
        staged = Path(self.basedir) / f".new-{self.uid}"
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        self.dir = str(staged)
        self._save_start(staged)
        self.dir = str(place_folder(staged, wanted_name=self._wanted_id or None))

    def _save_start(self, folder: Path) -> None:
        self.dir = str(folder)
        self.save_json(self.config, "config.json")
        (folder / "cout.txt").touch()
        self._save_run()

    def _save_run(self) -> None:
        self._save_info()
        self.save_json(self.run_entry, "run.json")

    def _save_info(self) -> None:
        own = {"uid": self.uid, "job_name": self.job_name, "attempts": self._attempts}
        self.save_json(self._facts | own, "info.json")

    def _finish(self, status: str, time: datetime, **fields: Any) -> None:
        if self.dir is None:
            return  # The start failed: there is no record to end.
        with self._lock, self._reported("the end of the run"):
            ending = {"status": status, "stop_time": time.isoformat()}
            self._attempts[-1] |= ending
            self.run_entry.update(ending, **fields)
            self._save_run()

    def _list_artifact(self, name: str) -> None:
        if name not in self.run_entry["artifacts"]:
            self.run_entry["artifacts"].append(name)
            self.save_json(self.run_entry, "run.json")
