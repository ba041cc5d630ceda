"""What a run of a sweep is: its settings as typed, its key, and what its job has come to."""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from scaling_fl.commands.command_line import CommandLine
from scaling_fl.commands.endings import ROOT, stage
from scaling_fl.config import Config
from scaling_fl.config.typed import read_typed
from scaling_fl.learning.tables.sources import file_digest, folder_digest, is_remote
from scaling_fl.runtime.record.journal import JOURNAL
from scaling_fl.runtime.storage import open_storage
from scaling_fl.runtime.tracking.journals import journal_path, source_of_job
from scaling_fl.runtime.tracking.run_database import MONGO
from scaling_fl.runtime.tracking.runs import Run
from scaling_fl.sweeps.entry import Entry
from scaling_fl.sweeps.folder_queue import FolderQueue
from scaling_fl.sweeps.keys import job_name_of, run_key
from scaling_fl.sweeps.mongo_queue import MongoQueue
from scaling_fl.sweeps.queue import Queue

SCRIPT = "run_experiments.py"
FINISHED = ("COMPLETED", "DEGRADED")


def open_queue(place: str, name: str) -> Queue:
    """Open the queue of a sweep: in a folder, in an object store, or with ``mongo:`` in MongoDB.

    Raises:
        UserError: the place cannot be reached.
    """
    return MongoQueue(name, say=stage) if place == MONGO else FolderQueue(place, name)


def read_words(words: Sequence[str]) -> CommandLine:
    """Read settings as the training command reads what follows ``with``."""
    line = CommandLine("train_federated.py")
    line.typed = read_typed(words, (Path.cwd(), ROOT))
    return line


def named_words(words: Sequence[str], config: Config, sweep: str, key: str) -> tuple[str, ...]:
    """Add the names by which a run is found again; a folder of checkpoints is that of all runs."""
    name = job_name_of(sweep, key)
    added = [f"job_name={name}"]
    if config.checkpoints_dir:
        added.append(f"checkpoints_dir={config.checkpoints_dir.rstrip('/')}/{name}")
    return (*words, *added)


def content_digest(place: str) -> str:
    """Hash a file, a folder or what is at an address.

    Raises:
        UserError: it cannot be read.
    """
    if is_remote(place):
        return file_digest(place)
    path = Path(place).expanduser()
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    states = tuple((str(file), *_state(file)) for file in files)
    return _local_digest(str(path), states)


def _state(file: Path) -> tuple[int, int]:
    try:
        found = os.stat(file)
    except OSError:
        return (0, 0)
    return found.st_size, found.st_mtime_ns


@cache
def _local_digest(place: str, states: tuple[tuple[str, int, int], ...]) -> str:
    """Hash what has not changed only once; reading says what is wrong with a file."""
    path = Path(place)
    if path.is_dir():
        return folder_digest(path, [Path(name) for name, _, _ in states])
    return file_digest(place)


def is_current(entry: Entry) -> bool:
    """Say whether a run would be what it was when it was put into its queue.

    Otherwise its data or the code have changed since, or are others on this machine.
    """
    return run_key(read_words(entry.words).config(), content_digest) == entry.key


def run_of(config: Config) -> Run | None:
    """Read what the job of a run has come to; None if it has not begun.

    Raises:
        UserError: its journal cannot be read.
    """
    storage = open_storage(config.checkpoints_dir or f"checkpoints/{config.job_name}")
    runs_dir = Path(config.tracking.runs_dir)
    has_begun = journal_path(storage, runs_dir).is_file()
    if not has_begun and (storage.is_local or JOURNAL not in storage.names()):
        return None
    return source_of_job(storage, runs_dir).load()


def place_of(run: Run) -> str:
    """Say where a run is recorded."""
    return str(run.folder) if run.folder else run.where
