"""A queue in MongoDB, in the collection ``sweeps`` of the database where the runs are tracked.

A document is a run. Its worker gives a sign of life every few seconds, by the server's clock, and
a document whose worker has given none for a while is taken over by whoever asks first. While the
server is away, workers train on and wait for it where they need it.
"""

import os
import threading
import time
import weakref
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from scaling_fl.core.errors import UserError
from scaling_fl.core.waiting import Waiting
from scaling_fl.runtime.storage.claim import Owner
from scaling_fl.runtime.tracking.mongo_settings import (
    MongoSettings,
    failure_sentence,
    settings_from_environment,
)
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

if TYPE_CHECKING:
    from pymongo.collection import Collection

T = TypeVar("T")
Document = dict[str, Any]
COLLECTION = "sweeps"
_RETRY_SECONDS = 1.0
_FIELDS = [field.name for field in fields(Entry)]


@dataclass(frozen=True)
class LeaseTiming:
    """When a run counts as abandoned, in seconds."""

    heartbeat_seconds: float = 5.0
    stale_seconds: float = 30.0


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
        self.server = _Server(settings, Waiting(say))

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
            if not self._is_owned(document, now) and (lease := self._take(document)):
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
        found = self.server.call(lambda runs: list(runs.find(query)))
        yield from sorted(found, key=lambda document: (document["order"], document["key"]))

    def _is_owned(self, document: Document, now: datetime) -> bool:
        if document["owner"] is None:
            return False
        age = now - document["beat"]
        is_silent = age > timedelta(seconds=self.timing.stale_seconds)
        return not is_silent and not _owner(document).is_dead

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
        else:
            self._note(entry, {})
        return not entry.is_over

    def end(self, outcome: Outcome, *, error: str = "", run: str = "") -> None:
        self._let_go(ended(self.entry, outcome, error, run))

    def release(self) -> None:
        self._let_go(given_back(self.entry))

    def _let_go(self, entry: Entry) -> None:
        self._stop.set()
        self._thread.join()
        self._note(entry, {"owner": None})

    def _note(self, entry: Entry, also: Document) -> None:
        """Write the run, unless another worker has taken it over."""
        self.entry = entry
        change = {"$set": _document(entry) | also}
        self._server.call(lambda runs: runs.update_one(self._mine, change))

    def _beat(self) -> None:
        from pymongo.errors import PyMongoError

        while not self._stop.wait(self._queue.timing.heartbeat_seconds):
            # An outage does not end the lease; only another owner does.
            with suppress(PyMongoError):
                found = self._server.collection.find_one_and_update(
                    self._mine, {"$currentDate": {"beat": True}}
                )
                self._lost = found is None
                self._pruned = bool(found and found.get("pruned"))
                if self._lost:
                    return


class _Server:
    """The collection, and the patience to wait for its server."""

    def __init__(self, settings: MongoSettings, waiting: Waiting) -> None:
        self._settings, self._waiting = settings, waiting
        client = settings.connect()
        weakref.finalize(self, client.close)
        self.collection: Collection[Document] = client[settings.database][COLLECTION]

    def call(self, action: "Callable[[Collection[Document]], T]") -> T:
        """Return what an action returns; one that the connection broke off is done again.

        Raises:
            UserError: the server refuses it.
        """
        from pymongo.errors import ConnectionFailure, PyMongoError

        while True:
            try:
                return action(self.collection)
            except ConnectionFailure as error:
                self._waiting(f"{failure_sentence(error, self._settings)}; waiting for it")
                time.sleep(_RETRY_SECONDS)
            except PyMongoError as error:
                raise UserError(f"{failure_sentence(error, self._settings)}.") from None

    def now(self) -> datetime:
        """Return the time by the server's clock."""
        found: datetime = self.call(lambda runs: runs.database.command("hello")["localTime"])
        return found


def _document(entry: Entry) -> Document:
    return asdict(entry) | {"words": list(entry.words)}


def _entry(document: Document) -> Entry:
    found = {name: document[name] for name in _FIELDS}
    return Entry(**found | {"words": tuple(document["words"])})


def _owner(document: Document) -> Owner:
    return Owner(**document["owner"])
