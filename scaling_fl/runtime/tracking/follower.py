"""Copy a run folder to a tracker from a background thread that the run never waits for."""

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
from typing import Protocol

from scaling_fl.core.json_text import json_text
from scaling_fl.runtime.tracking.copies import true_status
from scaling_fl.runtime.tracking.event_files import EVENT_FOLDER
from scaling_fl.runtime.tracking.run_files import replace_file

with warnings.catch_warnings():
    # Sacred imports pkg_resources, which warns of its own end at every start.
    warnings.filterwarnings("ignore", message="pkg_resources")
    from sacred.observers import RunObserver

MARKERS = ("mirror.json", "mlflow.json")
"""Of each tracker, the file of a run folder that says what it has received."""
POLL_SECONDS = 5.0
PAUSE_SECONDS = 1.0
TABLES_SECONDS = 60.0
LONGEST_BACKOFF_SECONDS = 30.0
LOCK_SECONDS = 10.0


class Tracker(Protocol):
    """A place that run folders are copied to. Only ``send`` and ``ping`` reach for it."""

    name: str
    """What it is, such as "the database"."""
    marker: str
    lock: str
    """What of a run folder is locked against another process that delivers to this tracker."""

    @property
    def target(self) -> str:
        """Its address, without secrets."""

    def prepare(self) -> None:
        """Import what ``send`` needs, which may take seconds."""

    def ping(self) -> None:
        """Raise what ``send`` would raise if the tracker cannot be reached."""

    def send(self, run_dir: Path, *, tables: bool) -> object:
        """Bring it up to the folder; the growing tables may wait. Return the run's id there."""

    def forget(self) -> None:
        """Start anew after an exception: nobody knows how much of that ``send`` arrived."""

    def close(self) -> None:
        """End the connection."""

    def failure(self, error: Exception) -> str:
        """Say in one sentence why it did not take something, without any secret."""

    def is_away(self, error: Exception) -> bool:
        """Tell whether it would take no run at all now."""

    def is_refusal(self, error: Exception) -> bool:
        """Tell whether it cannot take this run, while it may take others."""


def deliver(run_dir: Path, tracker: Tracker) -> object:
    """Deliver all of a run folder, and mark it as delivered; return the run's id there."""
    with _locked(run_dir / tracker.lock):
        digest = content_digest(run_dir)
        run_id = tracker.send(run_dir, tables=True)
        _mark(run_dir, digest, run_id, tracker)
    return run_id


def is_delivered(run_dir: Path, tracker: Tracker) -> bool:
    """Tell whether what the folder holds now has been delivered to that very place.

    A run that has died since then says so nowhere in its folder, and is not delivered yet.
    """
    try:
        marker = json.loads((run_dir / tracker.marker).read_bytes())
        now = (tracker.target, content_digest(run_dir), true_status(run_dir))
    except (OSError, ValueError):
        return False
    known: object = (marker.get("target"), marker.get("digest"), marker.get("status"))
    return known == now


def content_digest(run_dir: Path) -> str:
    """Digest every file of a run that is delivered."""
    digest = hashlib.sha256()
    for path in sorted(run_dir.rglob("*")):
        is_sent = path.name not in MARKERS and path.parent.name != EVENT_FOLDER
        if path.is_file() and is_sent and not path.name.startswith("."):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.relative_to(run_dir)} {content}\n".encode())
    return digest.hexdigest()


class _Folder(Protocol):
    @property
    def path(self) -> Path: ...

    def log(self, text: str) -> None: ...


class Follower(RunObserver):
    """Keep a tracker up to date with a run folder; never raise into the run, never block it.

    Sacred ends it by ``join`` after the last event of the run, so the final status is delivered.
    """

    priority = 10  # After the run folder, which is what it reads.

    def __init__(
        self, run_folder: _Folder, tracker: Tracker, *, note: Callable[[str], None] | None = None
    ) -> None:
        self._folder, self._tracker = run_folder, tracker
        self.note = note or self._print
        """Takes one sentence when the tracker goes away, comes back, or is given up."""
        self._thread: threading.Thread | None = None
        self._poked, self._closing = threading.Event(), threading.Event()
        self._delivered_digest = ""
        self._tables_time = 0.0
        self._away = self._complete = self._left = False

    def prepare(self) -> None:
        """Begin to import what deliveries need, beside what a run does first."""
        threading.Thread(target=self._prepare, name="imports", daemon=True).start()

    def start(self) -> None:
        """Begin to deliver; the run folder is open by now."""
        self._thread = threading.Thread(target=self._work, name="follower", daemon=True)
        self._thread.start()

    def heartbeat_event(self, *_: object, **__: object) -> None:
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
                f"{self._place} has not received all of the run; "
                f"`./run-local.sh scripts/sync_runs.py --runs-dir {self._folder.path.parent}` "
                f"delivers the rest of {self._folder.path} when it can be reached."
            )

    @property
    def _place(self) -> str:
        return f"{self._tracker.name} {self._tracker.target}"

    def _prepare(self) -> None:
        with suppress(Exception):  # the first delivery fails, too, and tells why
            self._tracker.prepare()

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
        self._tracker.close()

    def _try(self, last: bool) -> bool:
        try:
            self._deliver(last)
        # Whatever goes wrong here is the tracker's trouble, never the run's.
        except Exception as error:
            self._tracker.forget()
            if not (self._away or last or self._left):
                self._tell(
                    f"{self._tracker.failure(error)}; the run goes on, its record is kept in "
                    f"{self._folder.path} and delivered when {self._tracker.name} is back."
                )
            self._away = True
            return False
        if self._away and not self._left:
            self._tell(f"{self._place} is back and up to date.")
        self._away = False
        return True

    def _deliver(self, last: bool) -> None:
        folder = self._folder.path
        digest = content_digest(folder)
        if digest == self._delivered_digest:
            return
        tables = last or time.monotonic() - self._tables_time > TABLES_SECONDS
        with _locked(folder / self._tracker.lock):
            run_id = self._tracker.send(folder, tables=tables)
            if tables:
                with suppress(OSError):  # a full disk is no trouble of the tracker's
                    _mark(folder, digest, run_id, self._tracker)
                self._tables_time, self._delivered_digest = time.monotonic(), digest


def _mark(run_dir: Path, digest: str, run_id: object, tracker: Tracker) -> None:
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    marker = {"digest": digest, "id": run_id, "target": tracker.target, "time": moment}
    marker["status"] = true_status(run_dir)
    replace_file(run_dir / tracker.marker, json_text(marker, indent=2).encode())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a run against another delivery to the same place; the lock dies with its process."""
    descriptor = os.open(path, os.O_RDONLY)
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
