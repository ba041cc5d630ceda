"""MongoDB as a place that run folders are copied to."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling_fl.runtime.tracking.mongo_delivery import MongoDelivery
from scaling_fl.runtime.tracking.mongo_settings import (
    SOCKET_SECONDS,
    MongoSettings,
    failure_sentence,
)

if TYPE_CHECKING:
    from pymongo import MongoClient


class MongoTracker:
    """One database; it is connected to when something is to be sent."""

    name, marker = "the database", "mirror.json"
    lock = ""  # the folder itself

    def __init__(self, settings: MongoSettings, *, socket_seconds: float = SOCKET_SECONDS) -> None:
        self._settings, self._socket_seconds = settings, socket_seconds
        self._client: MongoClient[dict[str, Any]] | None = None
        self._delivery: MongoDelivery | None = None

    @property
    def target(self) -> str:
        return self._settings.target

    def prepare(self) -> None:
        import_module("gridfs")

    def ping(self) -> None:
        self._connected().admin.command("ping")

    def send(self, run_dir: Path, *, tables: bool) -> int:
        if self._delivery is None or self._delivery.run_dir != run_dir:
            self._delivery = MongoDelivery(run_dir, self._connected()[self._settings.database])
        return self._delivery.send(tables=tables)

    def forget(self) -> None:
        self._delivery = None

    def close(self) -> None:
        if self._client:
            self._client.close()

    def failure(self, error: Exception) -> str:
        return failure_sentence(error, self._settings)

    def is_away(self, error: Exception) -> bool:
        from pymongo.errors import PyMongoError

        return isinstance(error, PyMongoError)

    def is_refusal(self, error: Exception) -> bool:
        from bson.errors import BSONError

        return isinstance(error, BSONError | OSError | LookupError | ValueError)

    def _connected(self) -> "MongoClient[dict[str, Any]]":
        if self._client is None:
            self._client = self._settings.connect(socket_seconds=self._socket_seconds)
        return self._client
