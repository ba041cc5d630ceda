"""Runs in MongoDB: the documents that Sacred's schema keeps of a run, read back by its number."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from scaling_fl.core.errors import UserError
from scaling_fl.runtime.record.journal import Series
from scaling_fl.runtime.tracking.mongo_settings import failure_sentence, settings_from_environment

if TYPE_CHECKING:
    from pymongo.database import Database

MONGO = "mongo:"
"""What the address of a run in the database starts with; its number follows."""


class RunDatabase:
    """The database that the environment names; every call reads only, and connects anew.

    Calls inside ``kept_open`` share a connection.
    """

    def __init__(self) -> None:
        settings = settings_from_environment(os.environ)
        if settings is None:
            raise UserError(
                f"a run {MONGO}ID needs a database, got none; set SACRED_MONGO_URI, or SACRED_USER,"
                " SACRED_PASSWORD, SACRED_HOST and SACRED_DATABASE, in the environment or in .env."
            )
        self._settings = settings
        self._kept: Database[dict[str, Any]] | None = None

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Share one connection between all calls inside.

        Raises:
            UserError: it breaks.
        """
        with self._open() as self._kept:
            try:
                yield
            finally:
                self._kept = None

    def numbers(self) -> list[int]:
        """List the numbers of all runs, in ascending order."""
        with self._open() as database:
            found = database.runs.find({"_id": {"$type": "number"}}, {"_id": 1}).sort("_id", 1)
            return [int(run["_id"]) for run in found]

    def document(self, number: int, *fields: str) -> dict[str, Any]:
        """Read the document of a run, or only some of its fields.

        Raises:
            UserError: there is no such run.
        """
        with self._open() as database:
            found = database.runs.find_one({"_id": number}, dict.fromkeys(fields, 1) or None)
        if found is None:
            raise UserError(
                f"{MONGO}{number} must be a run of {self._settings.target}, which has none of "
                "that number; check the number."
            )
        return found

    def documents(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Read the documents of many runs, without what they printed, in ascending order."""
        with self._open() as database:
            wanted = {"_id": {"$in": list(numbers)}}
            return list(database.runs.find(wanted, {"captured_out": 0}).sort("_id", 1))

    def metrics(self, numbers: Sequence[int]) -> dict[int, dict[str, Series]]:
        """Read the curves of runs, by number and name."""
        with self._open() as database:
            wanted = {"run_id": {"$in": list(numbers)}}
            found = list(database.metrics.find(wanted).sort("name", 1))
        curves: dict[int, dict[str, Series]] = {}
        for curve in found:
            curves.setdefault(curve["run_id"], {})[curve["name"]] = Series(
                steps=curve["steps"],
                values=curve["values"],
                timestamps=[moment.isoformat() for moment in curve["timestamps"]],
            )
        return curves

    def artifact(self, document: dict[str, Any], name: str) -> bytes | None:
        """Read a file of a run; None when the run has none of that name."""
        import gridfs

        found = [a["file_id"] for a in document.get("artifacts", []) if a["name"] == name]
        if not found:
            return None
        with self._open() as database:
            try:
                data: bytes = gridfs.GridFS(database).get(found[0]).read()
            except gridfs.NoFile:  # it was replaced a moment ago
                return None
        return data

    @contextmanager
    def _open(self) -> "Iterator[Database[dict[str, Any]]]":
        from pymongo.errors import PyMongoError

        if self._kept is not None:
            yield self._kept
            return
        try:
            with self._settings.connect() as client:
                yield client[self._settings.database]
        except PyMongoError as error:
            raise UserError(f"{failure_sentence(error, self._settings)}.") from None
