"""A queue in a folder of this machine, of a shared disk or of an object store.

``PLACE/SWEEP/KEY/entry.json`` is a run, and the claim beside it is that of its worker.
"""

import json
import time
from collections.abc import Container, Sequence
from dataclasses import asdict
from typing import NamedTuple

from scaling_fl.core.errors import UserError
from scaling_fl.core.json_text import json_text
from scaling_fl.runtime.storage import NotStored, Storage, StorageError, open_storage
from scaling_fl.runtime.storage.claim import Claim, is_in_use
from scaling_fl.sweeps.entry import Entry, Outcome, begun, ended, given_back, this_worker, to_retry

ENTRY, PRUNED = "entry.json", "pruned"
ADDING_SECONDS = 60.0


class FolderQueue:
    """The queue of a sweep in a folder."""

    def __init__(self, place: str, name: str) -> None:
        self._folder = f"{place.rstrip('/')}/{name}"
        self._storage = open_storage(self._folder)
        self.where = self._storage.url

    def add(self, entries: Sequence[Entry]) -> int:
        claim = Claim.acquire(self._storage, patience_seconds=ADDING_SECONDS)
        try:
            known = {key for key, _ in self._stored()}
            new = [entry for entry in entries if entry.key not in known]
            began = time.time()
            for number, entry in enumerate(new):
                # Whoever adds later comes later, and each adds in order.
                _write(self._of(entry.key), entry, [began, number])
        finally:
            claim.release()
        return len(new)

    def take(self, keys: Container[str] | None = None) -> "FolderLease | None":
        for key, stored in self._stored():
            if (keys is None or key in keys) and not stored.entry.is_over:
                lease = self._take(self._of(key))
                if lease:
                    return lease
        return None

    def entries(self) -> list[Entry]:
        return [self._as_it_is(key, stored.entry) for key, stored in self._stored()]

    def retry(self, key: str) -> None:
        storage = self._of(key)
        if stored := _read(storage):
            storage.delete([PRUNED])
            _write(storage, to_retry(stored.entry), stored.order)

    def prune(self, key: str) -> None:
        self._of(key).write_bytes(PRUNED, b"")

    def _as_it_is(self, key: str, entry: Entry) -> Entry:
        is_gone = entry.outcome == "running" and not is_in_use(self._of(key))
        return given_back(entry) if is_gone else entry

    def _take(self, storage: Storage) -> "FolderLease | None":
        try:
            claim = Claim.acquire(storage, patience_seconds=0.0)
        except StorageError:
            raise
        except UserError:
            return None  # another worker has it
        stored = _read(storage)
        if stored is None or stored.entry.is_over:  # meanwhile another one has ended it
            claim.release()
            return None
        lease = FolderLease(storage, claim, stored)
        if lease.is_pruned:
            lease.end("pruned")
            return None
        return lease

    def _of(self, key: str) -> Storage:
        return open_storage(f"{self._folder}/{key}")

    def _stored(self) -> list[tuple[str, "_Stored"]]:
        """Read all runs, in their order."""
        ending = f"/{ENTRY}"
        keys = [n.removesuffix(ending) for n in self._storage.names() if n.endswith(ending)]
        found = [(key, stored) for key in keys if (stored := _read(self._of(key)))]
        return sorted(found, key=lambda pair: (pair[1].order, pair[0]))


class FolderLease:
    """A run that this process has taken from a folder."""

    def __init__(self, storage: Storage, claim: Claim, stored: "_Stored") -> None:
        self._storage, self._claim, self._order = storage, claim, stored.order
        self.entry = stored.entry

    @property
    def is_lost(self) -> bool:
        return self._claim.lost

    @property
    def is_pruned(self) -> bool:
        return PRUNED in self._storage.names()

    def begin(self, last_round: int) -> bool:
        self._note(begun(self.entry, this_worker(), last_round))
        if self.entry.is_over:
            self._claim.release()
        return not self.entry.is_over

    def end(self, outcome: Outcome, *, error: str = "", run: str = "") -> None:
        self._let_go(ended(self.entry, outcome, error, run))

    def release(self) -> None:
        self._let_go(given_back(self.entry))

    def _let_go(self, entry: Entry) -> None:
        try:
            if not self.is_lost:
                self._note(entry)
        finally:
            self._claim.release()

    def _note(self, entry: Entry) -> None:
        self.entry = entry
        _write(self._storage, entry, self._order)


class _Stored(NamedTuple):
    entry: Entry
    order: list[float]


def _read(storage: Storage) -> _Stored | None:
    """Read a run; None where there is none, or what is there is none."""
    try:
        found = json.loads(storage.read_bytes(ENTRY))
        fields = found["entry"] | {"words": tuple(found["entry"]["words"])}
        return _Stored(Entry(**fields), found["order"])
    except (NotStored, ValueError, TypeError, KeyError):
        return None


def _write(storage: Storage, entry: Entry, order: Sequence[float]) -> None:
    content = {"entry": asdict(entry), "order": order}
    storage.write_bytes(ENTRY, json_text(content, indent=1).encode())
