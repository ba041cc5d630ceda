"""One live run per checkpoint folder: a claim that names its owner and ends with it.

The kernel's lock on a file decides between processes of one machine: it is free at the moment in
which the last process of the run is gone, however it died, so nothing is left to clean up. An
object store has no locks. There the claim is an object with a heartbeat, which others may take
over when it is stale or when its owner is known to be dead.
"""

import errno
import fcntl
import hashlib
import json
import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from scaling_fl.core.errors import UserError
from scaling_fl.runtime.storage import LocalStorage, NotStored, RemoteStorage, Storage, StorageError
from scaling_fl.runtime.storage.base import explained
from scaling_fl.runtime.storage.processes import place, process_start

LOCK, OWNER = "claim.lock", "claim.json"

_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Timing:
    """When a claim on an object store counts as abandoned.

    The clocks of all machines that use it must agree to well under ``stale_seconds``.
    """

    heartbeat_seconds: float = 15.0
    stale_seconds: float = 60.0
    settle_seconds: float = 0.5
    clock: Callable[[], float] = time.time


@dataclass(frozen=True)
class Owner:
    """Who holds a claim; ``heartbeat`` is in seconds since 1970."""

    uid: str
    host: str
    place: str
    pid: int
    process_start: str
    started: str
    heartbeat: float

    @classmethod
    def this_process(cls, now: float) -> "Owner":
        return cls(
            uid=uuid.uuid4().hex,
            host=socket.gethostname(),
            place=place(),
            pid=os.getpid(),
            process_start=process_start(os.getpid()) or "",
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            heartbeat=now,
        )

    @property
    def is_dead(self) -> bool:
        """Whether its process is known to be gone; of another place nothing is known."""
        return self.place == place() and process_start(self.pid) != self.process_start

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()


_UNREADABLE = Owner("unreadable", "unknown", "", 0, "", "at an unknown time", 0.0)


class Claim:
    """The claim of this process on a storage, until it is released or the process is gone."""

    def __init__(self, storage: Storage, owner: Owner, lock: int, timing: Timing) -> None:
        self._storage, self._owner, self._timing = storage, owner, timing
        self._lock: int | None = lock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.lost = False
        """Whether another run took the claim over, because no heartbeat could be stored."""

    @classmethod
    def acquire(
        cls, storage: Storage, *, patience_seconds: float = 5.0, timing: Timing | None = None
    ) -> "Claim":
        """Claim a storage, waiting a little for a run that is just ending.

        Raises:
            UserError: another run is at work on it.
            StorageError: it cannot be claimed: read-only, without locks, out of reach.
        """
        timing = timing or Timing()
        deadline = time.monotonic() + patience_seconds
        lock = _lock(_lock_path(storage), deadline, storage)
        claim = cls(storage, Owner.this_process(timing.clock()), lock, timing)
        try:
            claim._register(deadline)
        except BaseException:
            os.close(lock)
            raise
        return claim

    def fileno(self) -> int | None:
        """Give the lock's descriptor; processes that inherit it keep the claim alive."""
        return self._lock

    def release(self) -> None:
        """Give the claim up; the lock stays with workers that are still running."""
        if self._lock is None:
            return
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with suppress(StorageError):
            if self._owns(self._storage, OWNER):
                self._storage.delete([OWNER])
        # Closed and not unlocked: unlocking would free it for all who inherited it.
        with suppress(OSError):  # a file system that is gone has nothing left to free
            os.close(self._lock)
        self._lock = None

    def _register(self, deadline: float) -> None:
        if isinstance(self._storage, RemoteStorage):
            self._take_object(self._storage, deadline)
            self._thread = threading.Thread(
                target=self._beat, args=(self._storage,), name="claim", daemon=True
            )
            self._thread.start()
        else:
            self._storage.write_bytes(OWNER, self._owner.to_bytes())

    def _take_object(self, storage: RemoteStorage, deadline: float) -> None:
        while True:
            other = read_owner(storage)
            if other is None:
                storage.create_bytes(OWNER, self._owner.to_bytes())
            elif self._is_abandoned(other):
                self._take_over(storage, other)
            # Settling is for stores that do not know conditions: the last writer wins there.
            if other is None or self._is_abandoned(other):
                time.sleep(self._timing.settle_seconds)
            if self._owns(storage, OWNER):
                return
            if time.monotonic() > deadline:
                raise _refusal(storage, read_owner(storage), self._timing.stale_seconds)
            time.sleep(_POLL_SECONDS)

    def _take_over(self, storage: RemoteStorage, old: Owner) -> None:
        """Replace a claim unless another process does.

        Only one creates the object that is named after the old claim. Who comes so late that it
        is gone again finds the new claim in the place of the old one.
        """
        successor = f"claim-after-{old.uid}.json"
        if storage.create_bytes(successor, self._owner.to_bytes()) or self._owns(
            storage, successor
        ):
            if read_owner(storage) == old:
                storage.write_bytes(OWNER, self._owner.to_bytes())
            storage.delete([successor])
        else:
            rival = read_owner(storage, successor)
            if rival is not None and self._is_abandoned(rival):
                storage.delete([successor])

    def _owns(self, storage: Storage, name: str) -> bool:
        found = read_owner(storage, name)
        return found is not None and found.uid == self._owner.uid

    def _is_abandoned(self, other: Owner) -> bool:
        age = self._timing.clock() - other.heartbeat
        return other.is_dead or age > self._timing.stale_seconds

    def _beat(self, storage: RemoteStorage) -> None:
        while not self._stop.wait(self._timing.heartbeat_seconds):
            # An outage ends or does not; only another owner ends the claim.
            with suppress(StorageError):
                found = read_owner(storage)
                if found is not None and found.uid != self._owner.uid:
                    self.lost = True
                    return
                self._owner = replace(self._owner, heartbeat=self._timing.clock())
                write = storage.create_bytes if found is None else storage.write_bytes
                write(OWNER, self._owner.to_bytes())


def read_owner(storage: Storage, name: str = OWNER) -> Owner | None:
    """Read who holds the claim; None when nobody does."""
    try:
        return Owner(**json.loads(storage.read_bytes(name)))
    except NotStored:
        return None
    except (ValueError, TypeError):
        return _UNREADABLE


def is_in_use(storage: Storage) -> bool:
    """Say whether a run is at work on a storage, as far as this machine can know."""
    owner = read_owner(storage)
    if owner is None or owner.is_dead:
        return False
    if isinstance(storage, LocalStorage):
        return not _is_free(storage.folder / LOCK)
    timing = Timing()
    return timing.clock() - owner.heartbeat <= timing.stale_seconds


def _is_free(path: Path) -> bool:
    """Say whether nobody holds a lock; where there are no locks, nobody is known to be gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    try:
        # Shared, and let go at once: who wants to claim the place tries again by itself.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _lock_path(storage: Storage) -> Path:
    if isinstance(storage, LocalStorage):
        return storage.folder / LOCK
    # Beside the object, a lock for this machine: it also knows the workers of a dead owner.
    digest = hashlib.sha256(storage.url.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"scaling_fl-{os.getuid()}-{digest}.lock"


def _lock(path: Path, deadline: float, storage: Storage) -> int:
    """Open and lock a file; the descriptor is inheritable."""
    with explained(f"claim {storage.url}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            try:
                if _try_lock(fd, path, storage):
                    os.set_inheritable(fd, True)
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
            if time.monotonic() > deadline:
                raise _refusal(storage, read_owner(storage))
            time.sleep(_POLL_SECONDS)


def _try_lock(fd: int, path: Path, storage: Storage) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever removed the file meanwhile made this lock worthless.
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            raise StorageError(
                f"could not claim {storage.url}: its file system does not support locks; choose a"
                " checkpoints_dir on another one."
            ) from None
        raise


def _refusal(
    storage: Storage, owner: Owner | None, stale_seconds: float | None = None
) -> UserError:
    if owner is None:
        who = "a run that has not named itself yet"
    else:
        who = f"a run on host {owner.host}, process {owner.pid}, started {owner.started}"
        if owner.is_dead:
            who += ", which is gone while processes that it started are still running"
    waiting = (
        ""
        if stale_seconds is None
        else (f" (a dead run's claim expires {stale_seconds:g} s after its last sign of life)")
    )
    return UserError(
        f"{storage.url} is in use by {who}; wait for its end or stop it{waiting}, or choose another"
        " job_name or checkpoints_dir."
    )
