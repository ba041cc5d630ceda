"""A queue in MongoDB, in the collection ``sweeps`` of the database where the runs are tracked.

A document is a run. Its worker gives a sign of life every few seconds, by the server's clock, and
a document whose worker has given none for a while is taken over by whoever asks first. While the
server is away, workers train on and wait for it where they need it; when it is back, they have time
to give their sign of life before anybody takes their runs.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from scaling_fl.core.errors import UserError
from scaling_fl.runtime.storage.claim import Owner
from scaling_fl.runtime.tracking.mongo_settings import settings_from_environment
from scaling_fl.sweeps.entry import (
    FINAL,
    TO_RETRY,
    Entry,
    Outcome,
    begun,
    ended,
    given_back,
    this_worker,
    to_retry,
)
from scaling_fl.sweeps.patient_server import COLLECTION, Document, PatientServer, ServerAway

_RELEASE_SECONDS = 5.0
_MAX_RUNS = 10_000
_FIELDS = [field.name for field in fields(Entry)]


@dataclass(frozen=True)
class LeaseTiming:
    """When a run counts as abandoned, in seconds."""

    heartbeat_seconds: float = 5.0
    stale_seconds: float = 30.0
    watch_seconds: float = 15.0
    """How long the one who takes a run over must have seen no sign of life from its worker.

    When the server comes back from an outage, those of all workers are old.
    """


class MongoQueue:
    """The queue of a sweep in the database that the environment names.

    ``say`` hears that the server is waited for.
    """

    def __init__(
        self, name: str, *, say: Callable[[str], None], timing: LeaseTiming | None = None
    ) -> None:
        settings = settings_from_environment(os.environ)
        if settings is None:
            raise UserError(
                "--sweeps-dir mongo: needs a database, got none; set SACRED_MONGO_URI, or "
                "SACRED_USER, SACRED_PASSWORD, SACRED_HOST and SACRED_DATABASE, in the environment "
                "or in .env."
            )
        self._name, self.timing = name, timing or LeaseTiming()
        self.where = f"the collection {COLLECTION} of {settings.target}"
        self.server = PatientServer(settings, say)
        self._watched: dict[str, tuple[datetime, int, float]] = {}

    def add(self, entries: Sequence[Entry]) -> int:
        began = self.server.now()
        new = [self._add(entry, [began, number]) for number, entry in enumerate(entries)]
        return sum(new)

    def _add(self, entry: Entry, order: list[Any]) -> bool:
        document = _document(entry) | {"sweep": self._name, "order": order, "owner": None}
        found = self.server.call(
            lambda runs: runs.update_one(
                {"_id": self._id(entry.key)}, {"$setOnInsert": document}, upsert=True
            )
        )
        return found.upserted_id is not None

    def take(self, keys: Container[str] | None = None) -> "MongoLease | None":
        now: datetime | None = None
        for document in self._documents({"outcome": {"$nin": list(FINAL)}}):
            if keys is not None and document["key"] not in keys:
                continue
            now = now or self.server.now()
            if self._is_free(document, now) and (lease := self._take(document)):
                return lease
        return None

    def entries(self) -> list[Entry]:
        documents, now = list(self._documents({})), self.server.now()
        return [
            _entry(each)
            if each["outcome"] != "running" or self._is_owned(each, now)
            else given_back(_entry(each))
            for each in documents
        ]

    def retry(self, key: str) -> None:
        wanted = {"key": key, "outcome": {"$in": list(TO_RETRY)}}
        for document in self._documents(wanted):
            self._set(wanted, _document(to_retry(_entry(document))) | {"pruned": False})

    def prune(self, key: str) -> None:
        self._set({"key": key}, {"pruned": True})

    def _set(self, wanted: Document, values: Document) -> None:
        mine = {"sweep": self._name} | wanted
        self.server.call(lambda runs: runs.update_one(mine, {"$set": values}))

    def _id(self, key: str) -> str:
        return f"{self._name}/{key}"

    def _documents(self, wanted: Document) -> Iterator[Document]:
        """Read runs, in their order."""
        query = {"sweep": self._name} | wanted
        # In one answer, because a server that starts again forgets what it has yet to send.
        found = self.server.call(lambda runs: list(runs.find(query, batch_size=_MAX_RUNS)))
        yield from sorted(found, key=lambda document: (document["order"], document["key"]))

    def _is_owned(self, document: Document, now: datetime) -> bool:
        if document["owner"] is None:
            return False
        age = now - document["beat"]
        is_silent = age > timedelta(seconds=self.timing.stale_seconds)
        return not is_silent and not _owner(document).is_dead

    def _is_free(self, document: Document, now: datetime) -> bool:
        """Say whether a run may be taken, from a worker that has it only after watching it."""
        if document["owner"] is None or _owner(document).is_dead:
            return True
        beat, outages, seen = document["beat"], self.server.outages, time.monotonic()
        earlier = self._watched.get(document["key"])
        if earlier is None or earlier[:2] != (beat, outages):
            self._watched[document["key"]] = earlier = (beat, outages, seen)
        is_watched = seen - earlier[2] >= self.timing.watch_seconds
        return is_watched and not self._is_owned(document, now)

    def _take(self, document: Document) -> "MongoLease | None":
        """Take a run that nobody has, unless another worker is faster."""
        owner = asdict(Owner.this_process(0.0))
        before = {"_id": document["_id"], "outcome": document["outcome"]}
        before |= {"owner": None} if document["owner"] is None else {
            "owner.uid": document["owner"]["uid"],
            "beat": document["beat"],
        }  # fmt: skip
        change = {"$set": {"owner": owner}, "$currentDate": {"beat": True}}
        self.server.call(lambda runs: runs.update_one(before, change))
        # Where the answer was lost with the connection, only the document can tell.
        mine = {"_id": document["_id"], "owner.uid": owner["uid"]}
        taken = self.server.call(lambda runs: runs.find_one(mine))
        if taken is None:
            return None
        lease = MongoLease(self, taken)
        if taken.get("pruned"):
            lease.end("pruned")
            return None
        return lease


class MongoLease:
    """A run that this process has taken from the database."""

    def __init__(self, queue: MongoQueue, document: Document) -> None:
        self._queue, self._server = queue, queue.server
        self._mine = {"_id": document["_id"], "owner.uid": document["owner"]["uid"]}
        self.entry = _entry(document)
        self._lost, self._pruned = False, False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    @property
    def is_lost(self) -> bool:
        return self._lost

    @property
    def is_pruned(self) -> bool:
        """Whether the last sign of life was answered so."""
        return self._pruned

    def begin(self, last_round: int) -> bool:
        entry = begun(self.entry, this_worker(), last_round)
        if entry.is_over:
            self._let_go(entry)
            return False
        self._lost = self._lost or not self._note(entry, {})
        return not self._lost

    def end(
        self, outcome: Outcome, *, error: str = "", run: str = "", is_final: bool = False
    ) -> None:
        self._let_go(ended(self.entry, outcome, error, run, is_final=is_final))

    def release(self) -> None:
        """Give the run back; while the server is away, it is left to be taken over."""
        with suppress(ServerAway):
            self._let_go(given_back(self.entry), patience_seconds=_RELEASE_SECONDS)

    def _let_go(self, entry: Entry, patience_seconds: float = math.inf) -> None:
        self._stop.set()
        self._thread.join()
        self._note(entry, {"owner": None}, patience_seconds)

    def _note(self, entry: Entry, also: Document, patience_seconds: float = math.inf) -> bool:
        """Write the run, unless another worker has taken it over; says whether it is ours."""
        self.entry = entry
        change = {"$set": _document(entry) | also}
        found = self._server.call(
            lambda runs: runs.update_one(self._mine, change), patience_seconds
        )
        return bool(found.matched_count)

    def _beat(self) -> None:
        from pymongo.errors import PyMongoError

        while not (self._lost or self._stop.wait(self._queue.timing.heartbeat_seconds)):
            # An outage does not end the lease; only another owner does.
            try:
                found = self._server.collection.find_one_and_update(
                    self._mine, {"$currentDate": {"beat": True}}
                )
            except PyMongoError:
                self._server.outages += 1
                continue
            self._lost = found is None
            self._pruned = bool(found and found.get("pruned"))


def _document(entry: Entry) -> Document:
    return asdict(entry) | {"words": list(entry.words)}


def _entry(document: Document) -> Entry:
    found = {name: document[name] for name in _FIELDS}
    return Entry(**found | {"words": tuple(document["words"])})


def _owner(document: Document) -> Owner:
    return Owner(**document["owner"])
