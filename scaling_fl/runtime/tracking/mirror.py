"""Mirror the run folder to MongoDB from a background thread that the run never waits for."""

import fcntl
import hashlib
import json
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from scaling_fl.core.json_text import json_text
from scaling_fl.runtime.tracking.event_files import EVENT_FOLDER
from scaling_fl.runtime.tracking.mongo_delivery import MongoDelivery
from scaling_fl.runtime.tracking.mongo_settings import (
    MongoSettings,
    SettingsError,
    failure_sentence,
    settings_from_environment,
)
from scaling_fl.runtime.tracking.run_files import replace_file

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.database import Database

with warnings.catch_warnings():
    # Sacred imports pkg_resources, which warns of its own end at every start.
    warnings.filterwarnings("ignore", message="pkg_resources")
    from sacred.observers import RunObserver

__all__ = [
    "MongoMirror",
    "MongoSettings",
    "SettingsError",
    "deliver",
    "is_delivered",
    "settings_from_environment",
    "sync",
]

MARKER = "mirror.json"
POLL_SECONDS = 5.0
PAUSE_SECONDS = 1.0
TABLES_SECONDS = 60.0
LONGEST_BACKOFF_SECONDS = 30.0
LOCK_SECONDS = 10.0


def sync(run_dir: Path, database: "Database[dict[str, Any]]") -> int:
    """Deliver all of a run folder; repeating it changes nothing. Return the run's id there."""
    with _locked(run_dir):
        return MongoDelivery(run_dir, database).send()


def deliver(run_dir: Path, database: "Database[dict[str, Any]]", settings: MongoSettings) -> int:
    """Deliver all of a run folder and leave the mark that it has been delivered."""
    with _locked(run_dir):
        digest = content_digest(run_dir)
        run_id = MongoDelivery(run_dir, database).send()
        _mark(run_dir, digest, run_id, settings)
    return run_id


def is_delivered(run_dir: Path, settings: MongoSettings) -> bool:
    """Tell whether what the folder holds now has been delivered to that very database."""
    try:
        marker = json.loads((run_dir / MARKER).read_bytes())
    except (OSError, ValueError):
        return False
    known: object = (marker.get("target"), marker.get("digest"))
    return known == (settings.target, content_digest(run_dir))


def content_digest(run_dir: Path) -> str:
    """Digest every file of a run that is delivered."""
    digest = hashlib.sha256()
    for path in sorted(run_dir.rglob("*")):
        is_sent = path.name != MARKER and path.parent.name != EVENT_FOLDER
        if path.is_file() and is_sent and not path.name.startswith("."):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.relative_to(run_dir)} {content}\n".encode())
    return digest.hexdigest()


class _Folder(Protocol):
    @property
    def path(self) -> Path: ...

    def log(self, text: str) -> None: ...


class MongoMirror(RunObserver):
    """Keep a database up to date with a run folder; never raise into the run, never block it.

    Sacred ends it by ``join`` after the last event of the run, so the final status is delivered.
    """

    priority = 10  # After the run folder, which is what it reads.

    def __init__(
        self,
        run_folder: _Folder,
        uri: str,
        database: str,
        *,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self._folder = run_folder
        self.note = note or self._print
        """Takes one sentence when the database goes away, comes back, or is given up."""
        self._settings = MongoSettings(uri, database)
        self._thread: threading.Thread | None = None
        self._poked, self._closing = threading.Event(), threading.Event()
        self._client: MongoClient[dict[str, Any]] | None = None
        self._delivery: MongoDelivery | None = None
        self._delivered_digest = ""
        self._tables_time = 0.0
        self._away = self._complete = self._left = False

    def start(self) -> None:
        """Begin to deliver; the run folder is open by now."""
        self._thread = threading.Thread(target=self._work, name="mongo-mirror", daemon=True)
        self._thread.start()

    def heartbeat_event(self, *_: Any, **__: Any) -> None:
        self.poke()

    def join(self) -> None:
        self.close()

    def poke(self) -> None:
        """Ask for a delivery soon; many pokes are one."""
        self._poked.set()

    def close(self, deadline_seconds: float = 5.0) -> None:
        """Try to deliver the rest within the deadline; else say how it can be delivered later."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._closing.set()
        self._poked.set()
        thread.join(deadline_seconds)
        self._left = True  # A thread that hangs in the network may come back: it stays silent.
        if not self._complete:
            self._tell(
                f"the database {self._settings.target} has not received all of the run; "
                f"`./run-local.sh scripts/sync_runs.py --runs-dir {self._folder.path.parent}` "
                f"delivers the rest of {self._folder.path} when it can be reached."
            )

    def _tell(self, text: str) -> None:
        with suppress(Exception):  # A console that is gone must not end the deliveries.
            self.note(text)

    def _print(self, text: str) -> None:
        print(text, flush=True)
        self._folder.log(text)

    def _work(self) -> None:
        backoff = PAUSE_SECONDS
        while True:
            last = self._closing.is_set()
            self._poked.clear()
            delivered = self._try(last)
            if last:
                self._complete = delivered
                break
            if delivered:
                backoff = PAUSE_SECONDS
                self._closing.wait(PAUSE_SECONDS)
                self._poked.wait(POLL_SECONDS)
            else:
                self._closing.wait(backoff)
                backoff = min(2 * backoff, LONGEST_BACKOFF_SECONDS)
        if self._client:
            self._client.close()

    def _try(self, last: bool) -> bool:
        try:
            self._deliver(last)
        # Whatever goes wrong here is the mirror's trouble, never the run's.
        except Exception as error:
            self._delivery = None
            if not (self._away or last or self._left):
                sentence = failure_sentence(error, self._settings)
                self._tell(
                    f"{sentence}; the run goes on, its record is kept in {self._folder.path} and "
                    f"delivered when the database is back."
                )
            self._away = True
            return False
        if self._away and not self._left:
            self._tell(f"the database {self._settings.target} is back and up to date.")
        self._away = False
        return True

    def _deliver(self, last: bool) -> None:
        folder = self._folder.path
        digest = content_digest(folder)
        if digest == self._delivered_digest:
            return
        self._client = self._client or self._settings.connect()
        tables = last or time.monotonic() - self._tables_time > TABLES_SECONDS
        with _locked(folder):
            self._delivery = self._delivery or MongoDelivery(
                folder, self._client[self._settings.database]
            )
            run_id = self._delivery.send(tables=tables)
            if tables:
                with suppress(OSError):  # a full disk is no trouble of the database's
                    _mark(folder, digest, run_id, self._settings)
                self._tables_time, self._delivered_digest = time.monotonic(), digest


def _mark(run_dir: Path, digest: str, run_id: int, settings: MongoSettings) -> None:
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    marker = {"digest": digest, "id": run_id, "target": settings.target, "time": moment}
    replace_file(run_dir / MARKER, json_text(marker, indent=2).encode())


@contextmanager
def _locked(run_dir: Path) -> Iterator[None]:
    """Hold the folder against another delivery of the same run; the lock dies with its process."""
    descriptor = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError("another process is delivering this run") from None
                time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)
