"""A claim lets one run at a time use a folder of checkpoints; it names its owner.

Between processes of one machine, the kernel's lock on a file decides. The lock is free when the
last process of the run has ended in any way, so nobody has to clean up. An object store has no
locks. There, the claim is an object with a heartbeat; another run may take it over when the
heartbeat is old or when the owner is known to be dead.
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
from scaling_fl.core.json_text import json_text
from scaling_fl.runtime.storage import LocalStorage, NotStored, RemoteStorage, Storage, StorageError
from scaling_fl.runtime.storage.base import explained
from scaling_fl.runtime.storage.processes import place, process_start

LOCK, OWNER = "claim.lock", "claim.json"

_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Timing:
    """When a claim on an object store counts as abandoned.

    The clocks of all machines that use the store must differ by much less than ``stale_seconds``.
    """

    heartbeat_seconds: float = 15.0
    stale_seconds: float = 60.0
    settle_seconds: float = 0.5
    clock: Callable[[], float] = time.time


@dataclass(frozen=True)
class Owner:
    """The process that has a claim; ``heartbeat`` is in seconds since 1970."""

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
        """Whether its process is known to be dead; about another ``place``, nothing is known."""
        return self.place == place() and process_start(self.pid) != self.process_start

    def to_bytes(self) -> bytes:
        return json_text(asdict(self), indent=1).encode()


_UNREADABLE = Owner("unreadable", "unknown", "", 0, "", "at an unknown time", 0.0)


class Claim:
    """The claim of this process on a storage, until it is released or the process ends."""

    def __init__(self, storage: Storage, owner: Owner, lock: int, timing: Timing) -> None:
        self._storage, self._owner, self._timing = storage, owner, timing
        self._lock: int | None = lock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.lost = False
        """Whether another run took the claim over, because this one could store no heartbeat."""

    @classmethod
    def acquire(
        cls, storage: Storage, *, patience_seconds: float = 5.0, timing: Timing | None = None
    ) -> "Claim":
        """Claim a storage; wait at most ``patience_seconds`` for a run that is about to end.

        Raises:
            UserError: another run uses the storage.
            StorageError: the storage is read-only, has no locks, or cannot be reached.
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
        """Return the descriptor of the lock; a process that inherits it keeps the claim alive."""
        return self._lock

    def release(self) -> None:
        """Give the claim up; workers that still run keep the lock."""
        if self._lock is None:
            return
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with suppress(StorageError):
            if self._owns(self._storage, OWNER):
                self._storage.delete([OWNER])
        # Close the lock and do not unlock it: to unlock would also free it in the workers.
        with suppress(OSError):  # the file system may be gone
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
            # Some stores ignore the condition, and there the last writer wins: wait for it.
            if other is None or self._is_abandoned(other):
                time.sleep(self._timing.settle_seconds)
            if self._owns(storage, OWNER):
                return
            if time.monotonic() > deadline:
                raise _refusal(storage, read_owner(storage), self._timing.stale_seconds)
            time.sleep(_POLL_SECONDS)

    def _take_over(self, storage: RemoteStorage, old: Owner) -> None:
        """Replace an abandoned claim, unless another process does.

        Only one process can create the object that has the name of the old claim. A process that
        comes after this object is deleted finds the new claim in place of the old one.
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
            # An outage does not end the claim; only another owner does.
            with suppress(StorageError):
                found = read_owner(storage)
                if found is not None and found.uid != self._owner.uid:
                    self.lost = True
                    return
                self._owner = replace(self._owner, heartbeat=self._timing.clock())
                write = storage.create_bytes if found is None else storage.write_bytes
                write(OWNER, self._owner.to_bytes())


def read_owner(storage: Storage, name: str = OWNER) -> Owner | None:
    """Read the owner of a claim; None if there is no claim."""
    try:
        return Owner(**json.loads(storage.read_bytes(name)))
    except NotStored:
        return None
    except (ValueError, TypeError):
        return _UNREADABLE


def is_in_use(storage: Storage, *, timing: Timing | None = None) -> bool:
    """Say whether a run uses a storage, as far as this machine can know."""
    owner = read_owner(storage)
    if owner is None or owner.is_dead:
        return False
    if isinstance(storage, LocalStorage):
        return not _is_free(storage.folder / LOCK)
    timing = timing or Timing()
    return timing.clock() - owner.heartbeat <= timing.stale_seconds


def _is_free(path: Path) -> bool:
    """Say whether no process has the lock; without locks, assume that one has."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    try:
        # A shared lock, which is free again at once: a process that wants to claim tries again.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _lock_path(storage: Storage) -> Path:
    if isinstance(storage, LocalStorage):
        return storage.folder / LOCK
    # Beside the object, a lock on this machine: the workers of a dead owner still have it.
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
        # If another process has removed the file meanwhile, this lock protects nothing.
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            raise StorageError(
                f"could not claim {storage.url}: its file system does not support locks; choose a"
                " checkpoints_dir on another file system."
            ) from None
        raise


def _refusal(
    storage: Storage, owner: Owner | None, stale_seconds: float | None = None
) -> UserError:
    if owner is None:
        who = "a run that has not written its name yet"
    else:
        who = f"a run on host {owner.host}, process {owner.pid}, started {owner.started}"
        if owner.is_dead:
            who += ", which is dead while processes that it started are still running"
    waiting = (
        ""
        if stale_seconds is None
        else (f" (a dead run's claim expires {stale_seconds:g} s after its last sign of life)")
    )
    return UserError(
        f"{storage.url} is in use by {who}; wait until that run ends or stop it{waiting}, or choose"
        " another job_name or checkpoints_dir."
    )
