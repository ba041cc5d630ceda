"""A queue in a folder of this machine, of a shared disk or of an object store.

``PLACE/SWEEP/KEY/entry.json`` is a run, and the claim beside it is that of its worker.
"""

import json
import time
from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import NamedTuple

from scaling_fl.core.errors import UserError
from scaling_fl.core.json_text import json_text
from scaling_fl.runtime.storage import NotStored, Storage, StorageError, open_storage
from scaling_fl.runtime.storage.claim import Claim, Timing, is_in_use
from scaling_fl.sweeps.entry import (
    TO_RETRY,
    Entry,
    Outcome,
    begun,
    ended,
    given_back,
    this_worker,
    to_retry,
)

ENTRY, PRUNED = "entry.json", "pruned"
ADDING_SECONDS = 90.0
"""How long another who adds runs is waited for; longer than an object store keeps a dead one's."""
_READERS = 16


class FolderQueue:
    """The queue of a sweep in a folder."""

    def __init__(self, place: str, name: str, *, timing: Timing | None = None) -> None:
        self._storage, self._timing = open_storage(f"{place.rstrip('/')}/{name}"), timing
        self.where = self._storage.url

    def add(self, entries: Sequence[Entry]) -> int:
        claim = Claim.acquire(self._storage, patience_seconds=ADDING_SECONDS, timing=self._timing)
        try:
            known = {key for key, _ in self._stored()}
            new = [entry for entry in entries if entry.key not in known]
            began = time.time()
            for number, entry in enumerate(new):
                # Whoever adds later comes later, and each adds in order.
                _write(self._storage.inside(entry.key), entry, [began, number])
        finally:
            claim.release()
        return len(new)

    def take(self, keys: Container[str] | None = None) -> "FolderLease | None":
        for key, stored in self._stored():
            if (keys is None or key in keys) and not stored.entry.is_over:
                lease = self._take(self._storage.inside(key))
                if lease:
                    return lease
        return None

    def entries(self) -> list[Entry]:
        return [self._as_it_is(key, stored.entry) for key, stored in self._stored()]

    def retry(self, key: str) -> None:
        storage = self._storage.inside(key)
        claim = self._claim(storage)
        if claim is None:
            return  # a worker has it already
        try:
            stored = _read(storage)
            if stored and stored.entry.outcome in TO_RETRY:
                storage.delete([PRUNED])
                _write(storage, to_retry(stored.entry), stored.order)
        finally:
            claim.release()

    def prune(self, key: str) -> None:
        self._storage.inside(key).write_bytes(PRUNED, b"")

    def _as_it_is(self, key: str, entry: Entry) -> Entry:
        if entry.outcome == "running" and not is_in_use(
            self._storage.inside(key), timing=self._timing
        ):
            return given_back(entry)
        return entry

    def _take(self, storage: Storage) -> "FolderLease | None":
        claim = self._claim(storage)
        if claim is None:
            return None
        stored = _read(storage)
        if stored is None or stored.entry.is_over:  # meanwhile another one has ended it
            claim.release()
            return None
        lease = FolderLease(storage, claim, stored)
        if lease.is_pruned:
            lease.end("pruned")
            return None
        return lease

    def _claim(self, storage: Storage) -> Claim | None:
        """Claim a run; None while a worker has it."""
        try:
            return Claim.acquire(storage, patience_seconds=0.0, timing=self._timing)
        except StorageError:
            raise
        except UserError:
            return None

    def _stored(self) -> list[tuple[str, "_Stored"]]:
        """Read all runs, in their order."""
        ending = f"/{ENTRY}"
        keys = [n.removesuffix(ending) for n in self._storage.names() if n.endswith(ending)]
        with ThreadPoolExecutor(_READERS) as pool:  # an object store takes its time for each
            stored = pool.map(lambda key: _read(self._storage.inside(key)), keys)
            found = [(key, run) for key, run in zip(keys, stored, strict=True) if run]
        return sorted(found, key=lambda pair: (pair[1].order, pair[0]))


class FolderLease:
    """A run that this process has taken from a folder."""

    def __init__(self, storage: Storage, claim: Claim, stored: "_Stored") -> None:
        self._storage, self._claim, self._order = storage, claim, stored.order
        self.entry = stored.entry
        self._is_overtaken = False

    @property
    def is_lost(self) -> bool:
        return self._claim.lost or self._is_overtaken

    @property
    def is_pruned(self) -> bool:
        try:
            return PRUNED in self._storage.names()
        except StorageError:  # a store that is away for a while fails no run
            return False

    def begin(self, last_round: int) -> bool:
        self._note(begun(self.entry, this_worker(), last_round))
        may_begin = not (self.is_lost or self.entry.is_over)
        if not may_begin:
            self._claim.release()
        return may_begin

    def end(
        self, outcome: Outcome, *, error: str = "", run: str = "", is_final: bool = False
    ) -> None:
        self._let_go(ended(self.entry, outcome, error, run, is_final=is_final))

    def release(self) -> None:
        self._let_go(given_back(self.entry))

    def _let_go(self, entry: Entry) -> None:
        try:
            self._note(entry)
        finally:
            self._claim.release()

    def _note(self, entry: Entry) -> None:
        """Write the run, unless another worker has made something of it meanwhile.

        After its machine stood still, that is all by which a worker may learn that it was taken
        for dead: the other one may have ended the run and let it go.
        """
        stored = _read(self._storage)
        self._is_overtaken = stored is None or stored.entry != self.entry
        if not self.is_lost:
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
