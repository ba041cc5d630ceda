"""The server of a queue in MongoDB: whoever needs it waits for it while it is away."""

import math
import time
import weakref
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from scaling_fl.core.errors import UserError
from scaling_fl.core.waiting import Waiting
from scaling_fl.runtime.tracking.mongo_settings import MongoSettings, failure_sentence

if TYPE_CHECKING:
    from pymongo.collection import Collection

T = TypeVar("T")
Document = dict[str, Any]
COLLECTION = "sweeps"
_RETRY_SECONDS = 1.0


class ServerAway(UserError):
    """The server has not come back in time."""


class PatientServer:
    """The collection of sweeps in a database, and the patience to wait for its server.

    Raises:
        UserError: the address cannot be used.
    """

    def __init__(self, settings: MongoSettings, say: Callable[[str], None]) -> None:
        from pymongo.errors import PyMongoError

        self._settings, self._say = settings, say
        self.outages = 0
        """How often it did not answer."""
        try:
            client = settings.connect()
        except PyMongoError as error:
            raise UserError(f"{failure_sentence(error, settings)}.") from None
        weakref.finalize(self, client.close)
        self.collection: Collection[Document] = client[settings.database][COLLECTION]

    def call(
        self, action: "Callable[[Collection[Document]], T]", patience_seconds: float = math.inf
    ) -> T:
        """Return what an action returns; one that the connection broke off is done again.

        Raises:
            UserError: the server refuses it, or stays away for longer than ``patience_seconds``.
        """
        from pymongo.errors import ConnectionFailure, PyMongoError

        waiting, began = Waiting(self._say), time.monotonic()
        while True:
            try:
                return action(self.collection)
            except ConnectionFailure as error:
                self.outages += 1
                sentence = failure_sentence(error, self._settings)
                if time.monotonic() - began >= patience_seconds:
                    raise ServerAway(f"{sentence}.") from None
                waiting(f"{sentence}; waiting for it")
                time.sleep(_RETRY_SECONDS)
            except PyMongoError as error:
                raise UserError(f"{failure_sentence(error, self._settings)}.") from None

    def now(self) -> datetime:
        """Return the time by the server's clock."""
        found: datetime = self.call(lambda runs: runs.database.command("hello")["localTime"])
        return found
