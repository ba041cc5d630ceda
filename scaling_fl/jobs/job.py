"""A job: what several starts of one federation have in common, found by its checkpoint folder."""

import os
import re
import shutil
import socket
import tempfile
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from scaling_fl.config import Config
from scaling_fl.core.errors import InputError
from scaling_fl.runtime.record.journal import (
    JOURNAL,
    JobRecord,
    Journal,
    JournalTail,
    fold,
    upload_journal,
)
from scaling_fl.runtime.storage import Storage, StorageError, open_storage
from scaling_fl.runtime.storage.base import explained
from scaling_fl.runtime.storage.claim import Claim
from scaling_fl.runtime.tracking.journals import journal_path
from scaling_fl.runtime.tracking.regained import run_of

_MANIFEST = re.compile(r"round-\d{6,}/manifest\.json")


@dataclass(frozen=True)
class Job:
    """A job that this process owns until it releases it."""

    name: str
    storage: Storage
    journal: Journal
    record: JobRecord
    uid: str
    claim: Claim
    is_new: bool
    """Whether this is its first start."""

    @property
    def checkpoints_url(self) -> str:
        return self.storage.url

    def begin(self, run_id: str, resume_command: str = "", start_time: str = "") -> None:
        """Journal this start, and the command that would resume it."""
        self.journal.append(
            "start",
            start_time=start_time,
            uid=self.uid,
            job_name=self.name,
            run_id=run_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            resume_command=resume_command,
        )

    def end(self, status: str, message: str = "") -> None:
        """Journal the end; the claim stays until the run's record is complete, too.

        Whoever goes on elsewhere finds the journal in the store, unless that is away.
        """
        self.journal.append("end", status=status, message=message)
        if not self.storage.is_local:
            with suppress(StorageError), self.storage.staging() as staging:
                upload_journal(self.journal.path, self.storage, staging)


def default_name(task_name: str) -> str:
    """Name a job by its task and the time, to the second."""
    plain = task_name.replace(":", ".")  # my_module:my_task
    return f"{plain}-{datetime.now():%Y%m%d-%H%M%S}"


def open_job(config: Config, *, patience_seconds: float = 5.0) -> Job:
    """Claim the checkpoint folder and read what earlier starts of the job have journaled.

    A run that is about to end is waited for.

    Raises:
        UserError: another run is at work on the folder.
        InputError: the folder is another job's, or its checkpoints are gone.
        StorageError: the folder cannot be reached.
        JournalError: its journal cannot be continued.
    """
    name = config.job_name or default_name(config.task_name)
    storage = open_storage(config.checkpoints_dir or f"checkpoints/{name}")
    if storage.is_local:
        check_outlives_container(Path(storage.url), "checkpoints_dir")
    claim = Claim.acquire(storage, patience_seconds=patience_seconds)
    try:
        names = storage.names()
        path = _fetched_journal(storage, names, Path(config.tracking.runs_dir))
        with explained(f"read the journal {path}"):
            record = fold(JournalTail(path).read_new())
        is_begun = any(_MANIFEST.fullmatch(name) for name in names)
        if record.checkpoints and not is_begun:
            raise InputError(
                f"{storage.url} must hold the checkpoints that its journal names, the last one of "
                f"round {record.checkpoints[-1]['round']}, and holds none; put them back, or start "
                "anew with another job_name or checkpoints_dir."
            )
        if record.uid is None and is_begun:
            # Its journal is gone, or has lost its beginning: one job stays one run.
            record = _adopted(record, run_of(Path(config.tracking.runs_dir), storage.url))
        if config.job_name is None and record.job_name:
            name = record.job_name  # a folder of checkpoints is enough to name the job
        if record.job_name not in (None, "", name):
            raise InputError(
                f"checkpoints_dir={storage.url} belongs to job_name={record.job_name}, got "
                f"job_name={name}; use that name to continue it, or another folder."
            )
        return Job(
            name,
            storage,
            Journal(path),
            record,
            record.uid or uuid.uuid4().hex,
            claim,
            is_new=not record.attempts and not is_begun,
        )
    except BaseException:
        claim.release()
        raise


def _adopted(record: JobRecord, run: JobRecord | None) -> JobRecord:
    """Make a job without a name that of a run, if there is one."""
    if run:
        record.uid, record.job_name, record.run_id = run.uid, run.job_name, run.run_id
        record.history = run.history
    return record


def _fetched_journal(storage: Storage, names: list[str], runs_dir: Path) -> Path:
    """Make the journal's folder, and take what the job journaled elsewhere over from the store."""
    path = journal_path(storage, runs_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not storage.is_local and JOURNAL in names:
        with tempfile.TemporaryDirectory() as temporary:
            copy = Path(temporary) / JOURNAL
            storage.fetch(JOURNAL, copy)
            # The one here may be ahead of its copy, unless the job has gone on elsewhere.
            if not path.exists() or not path.read_bytes().startswith(copy.read_bytes()):
                shutil.move(copy, path)
    return path


def check_outlives_container(folder: Path, name: str) -> None:
    """Refuse to keep what was trained in a place that ends with its container.

    Raises:
        StorageError: the folder, which the option ``name`` gave, is inside the container.
    """
    if "SCALING_FL_CONTAINER" not in os.environ:
        return
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if there.stat().st_dev == Path("/").stat().st_dev:
        raise StorageError(
            f"{name} must outlive the container, got {folder}, which is inside it; mount a folder "
            f"of this machine there (docker run -v /a/folder:{folder.absolute()}) or use "
            f"{'gs:// or s3://' if name == 'checkpoints_dir' else 'one that is mounted'}."
        )
