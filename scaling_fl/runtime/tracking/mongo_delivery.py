"""Copy a run folder into MongoDB, in the documents that Sacred's MongoObserver writes.

A run is found again by its uid, and curves and files have ids derived from it, so a delivery that
was cut off, repeated or done by two processes ends in the same documents, never in doubled ones.
"""

import hashlib
import json
import mimetypes
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from scaling_fl.core.json_text import number
from scaling_fl.runtime.tracking.earlier import add_earlier, keep_earlier
from scaling_fl.runtime.tracking.run_files import TABLE_NAMES

if TYPE_CHECKING:
    from bson import ObjectId
    from pymongo.database import Database

FORMAT = "MongoObserver-0.7.0"
MAX_CAPTURED_BYTES = 1_000_000
NOT_ALLOWED = 13  # the server's code
OPTIONAL_FIELDS = ("stop_time", "result", "fail_trace")
KNOWN_FIELDS = ["artifacts", "experiment.sources", "start_time", "heartbeat", "captured_out"]
TIMES = ("start_time", "heartbeat", "stop_time")
Curve = dict[str, list[Any]]


class MongoDelivery:
    """Send the state of one run folder, again and again; only what is new goes over the wire.

    What it knows of the database it learns from the database at the first ``send``. After an
    exception it must be thrown away: nobody knows how much of that ``send`` arrived.
    """

    def __init__(self, run_dir: Path, database: "Database[dict[str, Any]]") -> None:
        import gridfs

        self.run_dir, self._database = run_dir, database
        self._files = gridfs.GridFS(database)
        self.uid = str(_read(run_dir / "info.json")["uid"])
        self._id: int | None = None
        self._sent: dict[str, Any] = {}
        self._curves: dict[str, tuple[int, str]] = {}
        self._stored: dict[tuple[str, str], ObjectId] = {}
        self._sources: list[list[Any]] = []
        self._artifacts: list[dict[str, Any]] = []

    def send(self, *, tables: bool = True) -> int:
        """Bring the database up to the folder; the growing tables may wait. Return the run's id."""
        if self._id is None:
            self._make_indexes()
            self._id = self._find()
        document = read_document(self.run_dir)
        self._id = self._id or self._insert(document)
        metrics = (
            _read(self.run_dir / "metrics.json") if (self.run_dir / "metrics.json").exists() else {}
        )
        references = [self._send_curve(name, curve) for name, curve in metrics.items()]
        self._drop_other_curves(metrics)
        document["info"]["metrics"] = references
        # Files come last: a large one that does not get through must not hold up the curves.
        self._update(document)
        self._send_files(tables)
        self._update(document)
        self._drop_replaced_files()
        return self._id

    def _make_indexes(self) -> None:
        from pymongo.errors import OperationFailure

        try:
            self._database.metrics.create_index([("run_id", 1), ("name", 1)])
            self._database.runs.create_index("info.uid", sparse=True)
        except OperationFailure as error:
            # Indexes only save time; a user who may write need not be allowed to make any.
            if error.code != NOT_ALLOWED:
                raise

    def _find(self) -> int | None:
        wanted = dict.fromkeys([*KNOWN_FIELDS, "info.attempts"], 1)
        runs = self._database.runs
        found = list(runs.find({"info.uid": self.uid}, wanted).sort("_id", 1))
        keep_earlier(self.run_dir, _read(self.run_dir / "info.json"), found[0] if found else None)
        if not found:
            return None
        first, *later = found
        # A server that froze during an insert may carry it out after a second one was asked for.
        if later:
            runs.delete_many({"_id": {"$in": [other["_id"] for other in later]}})
        self._sources = first.get("experiment", {}).get("sources", [])
        self._artifacts = first.get("artifacts", [])
        return int(first["_id"])

    def _insert(self, document: dict[str, Any]) -> int:
        from pymongo.errors import DuplicateKeyError

        runs = self._database.runs
        while True:
            last = runs.find_one({"_id": {"$type": "number"}}, {"_id": 1}, sort=[("_id", -1)])
            number = int(last["_id"]) + 1 if last else 1
            with suppress(DuplicateKeyError):  # Another run took the number: take the next one.
                runs.insert_one({"_id": number, **document})
                return number

    def _update(self, document: dict[str, Any]) -> None:
        """Set the fields that have changed, with the files that are known to be stored."""
        experiment = document["experiment"] | {"sources": self._sources}
        document = document | {"experiment": experiment, "artifacts": self._artifacts}
        changed = {k: v for k, v in document.items() if k not in self._sent or self._sent[k] != v}
        gone = [
            k for k in OPTIONAL_FIELDS if k not in document and (k in self._sent or not self._sent)
        ]
        change = {"$set": changed, "$unset": dict.fromkeys(gone, "")}
        change = {operator: fields for operator, fields in change.items() if fields}
        if not change:
            return
        if not self._database.runs.update_one({"_id": self._id}, change).matched_count:
            raise LookupError(f"run {self._id} was deleted from the database during its delivery")
        self._sent = document

    # Metrics

    def _send_curve(self, name: str, raw: Mapping[str, list[Any]]) -> dict[str, str]:
        curve = _curve(raw)
        key = _object_id("metric", self.uid, name)
        count, digest = self._curves.get(name) or self._stored_curve(key)
        size = len(curve["steps"])
        rolled_back = digest != _curve_digest(curve, count)
        if rolled_back or (count < size and not self._extend_curve(key, curve, count)):
            self._replace_curve(key, name, curve)
        self._curves[name] = (size, _curve_digest(curve, size))
        return {"name": name, "id": str(key)}

    def _stored_curve(self, key: "ObjectId") -> tuple[int, str]:
        found = self._database.metrics.find_one({"_id": key, "run_id": self._id})
        if found is None:
            return 0, "not stored"
        curve = _curve(found)
        return len(curve["steps"]), _curve_digest(curve, len(curve["steps"]))

    def _extend_curve(self, key: "ObjectId", curve: Curve, count: int) -> bool:
        # The size is the guard: when this very push has arrived before, it must not do so again.
        match = {"_id": key, "run_id": self._id, "steps": {"$size": count}}
        push = {field: {"$each": points[count:]} for field, points in curve.items()}
        return bool(self._database.metrics.update_one(match, {"$push": push}).matched_count)

    def _replace_curve(self, key: "ObjectId", name: str, curve: Curve) -> None:
        fields = {"run_id": self._id, "name": name, **curve}
        self._database.metrics.update_one({"_id": key}, {"$set": fields}, upsert=True)

    def _drop_other_curves(self, metrics: Mapping[str, Any]) -> None:
        """Delete curves that a rolled back run no longer has, or that an older run left behind."""
        if self._sent and self._curves.keys() == metrics.keys():
            return
        self._curves = {name: known for name, known in self._curves.items() if name in metrics}
        keys = [_object_id("metric", self.uid, name) for name in metrics]
        self._database.metrics.delete_many({"run_id": self._id, "_id": {"$nin": keys}})

    # Files

    def _send_files(self, tables: bool) -> None:
        entry = _read(self.run_dir / "run.json")
        runs_dir = self.run_dir.parent
        sources = [(name, runs_dir / path) for name, path in entry["experiment"].get("sources", [])]
        self._sources = [
            [name, self._store(path, name)] for name, path in sources if path.is_file()
        ]
        earlier = {artifact["name"]: artifact for artifact in self._artifacts}
        for name in entry.get("artifacts", []):
            if (tables or name not in TABLE_NAMES) and (self.run_dir / name).is_file():
                key = self._store(self.run_dir / name, self._filename(name))
                earlier[name] = {"name": name, "file_id": key}
        self._artifacts = list(earlier.values())

    def _filename(self, name: str) -> str:
        return f"artifact://runs/{self._id}/{name}"

    def _store(self, path: Path, filename: str) -> "ObjectId":
        """Put a file into GridFS unless this very content is there; return its id."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if (filename, digest) not in self._stored:
                file.seek(0)
                self._stored[filename, digest] = self._put(file, filename, digest)
            return self._stored[filename, digest]

    def _put(self, file: IO[bytes], filename: str, digest: str) -> "ObjectId":
        match = {"filename": filename, "metadata.sha256": digest}
        if found := self._database["fs.files"].find_one(match, {"_id": 1}):
            key: ObjectId = found["_id"]
            return key
        # The id is this run's own: what is in its way is an earlier upload of this run that was
        # cut off, never one that another run is at.
        key = _object_id("file", self.uid, filename, digest)
        self._files.delete(key)
        content_type, _ = mimetypes.guess_type(filename)
        self._files.put(
            file,
            _id=key,
            filename=filename,
            metadata={"sha256": digest},
            content_type=content_type,
        )
        return key

    def _drop_replaced_files(self) -> None:
        current = {self._filename(a["name"]): a["file_id"] for a in self._artifacts}
        match = {"filename": {"$in": list(current)}, "_id": {"$nin": list(current.values())}}
        for file in self._database["fs.files"].find(match, {"_id": 1}):
            self._files.delete(file["_id"])


def read_document(run_dir: Path) -> dict[str, Any]:
    """Make the run's document, without its files, from run.json, config.json, info.json, cout.txt.

    Raises:
        OSError, ValueError: the folder holds no readable run.
    """
    entry, info = _read(run_dir / "run.json"), _read(run_dir / "info.json")
    cout = run_dir / "cout.txt"
    output = cout.read_bytes() if cout.exists() else b""
    entry, info, output = add_earlier(run_dir, entry, info, output)
    document: dict[str, Any] = _storable(entry | {"config": _read(run_dir / "config.json")})
    document |= {field: _moment(entry[field]) for field in TIMES if field in entry}
    document["experiment"].pop("sources", None)
    document["experiment"]["sources"] = []
    document["artifacts"] = []
    # Sacred's resources are pairs of a path and the md5 that ends the stored file's name.
    document["resources"] = [
        [name, Path(stored).stem.rpartition("_")[2]] for name, stored in entry.get("resources", [])
    ]
    document["info"] = _storable(info | {"run_folder": run_dir.name})
    document["captured_out"] = _tail(output)
    return document | {"format": FORMAT}


def _read(path: Path) -> Any:
    return json.loads(path.read_bytes())


def _tail(output: bytes) -> str:
    skipped = max(0, len(output) - MAX_CAPTURED_BYTES)
    text = output[skipped:].decode("utf-8", "replace")
    return f"[the first {skipped:,} bytes are in cout.txt]\n{text}" if skipped else text


def _storable(value: Any) -> Any:
    """Make JSON data acceptable to BSON the way Sacred does: keys without ``.`` and ``$``."""
    if isinstance(value, dict):
        return {_storable_key(key): _storable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return value


def _storable_key(key: str) -> str:
    key = f"@{key[1:]}" if key.startswith("$") else key
    return str(_storable(key.replace(".", ",").replace("\0", "")))


def _moment(text: str | None) -> datetime | None:
    """Read an ISO-8601 time as BSON keeps it: UTC, without a zone, in whole milliseconds."""
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _curve(raw: Mapping[str, list[Any]]) -> Curve:
    return {
        "steps": [int(step) for step in raw["steps"]],
        "values": [float(number(value)) for value in raw["values"]],
        "timestamps": [t if isinstance(t, datetime) else _moment(t) for t in raw["timestamps"]],
    }


def _curve_digest(curve: Curve, count: int) -> str:
    # A text, because two lists with a nan in them are never equal.
    text = repr([points[:count] for points in curve.values()])
    return hashlib.sha256(text.encode()).hexdigest()


def _object_id(*parts: str) -> "ObjectId":
    from bson import ObjectId

    return ObjectId(hashlib.sha256(json.dumps(parts).encode()).digest()[:12])
