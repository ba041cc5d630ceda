"""Copy a run folder into MLflow, by its own client.

A run is found again by its uid, and what MLflow has of it is read before anything is sent: a
delivery that was cut off or repeated ends in the same run with the same points. MLflow takes no
point back. A round that is computed again, after a kill, adds its point only if the value differs.
"""

import hashlib
import json
import math
import re
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling_fl.core.json_text import json_text, number
from scaling_fl.runtime.tracking.copies import true_status
from scaling_fl.runtime.tracking.runs import RUNNING

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

MAX_KEY, MAX_PARAM, MAX_TAG = 250, 6000, 8000
"""Characters that MLflow takes; it refuses longer names."""
MAX_FILE_BYTES = 5_000_000
"""Larger files stay in the run folder, which a tag names."""
FINISHED, FAILED, KILLED = "FINISHED", "FAILED", "KILLED"
STATUSES = {RUNNING: RUNNING, "COMPLETED": FINISHED, "DEGRADED": FINISHED, "FAILED": FAILED}
"""MLflow's word for each of ours; every other run was stopped, or has died."""
OWN_FILES = ("config.json", "cout.txt")
UID = "scaling_fl.uid"
CHANGED = "resumed_with."
"""Before the name of a setting that a later start has changed; MLflow keeps the first value."""


class MlflowDelivery:
    """Send the state of one run folder, again and again; only what is new goes over the wire.

    After an exception it must be thrown away: nobody knows how much of that ``send`` arrived.
    """

    def __init__(self, run_dir: Path, client: "MlflowClient", experiment: str) -> None:
        self.run_dir, self._client, self._experiment = run_dir, client, experiment
        self._id = ""
        self._status = RUNNING
        self._ended: int | None = None
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._points: dict[str, dict[int, float]] = {}
        self._files: dict[str, str] = {}

    def send(self, *, tables: bool) -> str:
        """Bring MLflow up to the folder; the files may wait. Return the run's id."""
        entry, info, config = (
            self._read(name) for name in ("run.json", "info.json", "config.json")
        )
        status = STATUSES.get(true_status(self.run_dir), KILLED)
        if not self._id:
            experiment = self._experiment_id()
            run = self._find(experiment, str(info["uid"])) or self._create(experiment, entry, info)
            self._take_in(run)
        self._send_texts(config, _tags(self.run_dir, entry, info, config))
        self._send_points()
        self._send_status(status, entry.get("stop_time") or entry.get("heartbeat"))
        # Files come last: a large one that does not get through must not hold up the rest.
        if tables:
            for name in (*OWN_FILES, *entry.get("artifacts", [])):
                self._send_file(name)
        return self._id

    def _read(self, name: str) -> dict[str, Any]:
        return dict(json.loads((self.run_dir / name).read_bytes()))

    # The run

    def _find(self, experiment: str, uid: str) -> "MlflowRun | None":
        wanted = f"tags.`{UID}` = '{uid}'"
        found = self._client.search_runs([experiment], wanted, order_by=["attribute.start_time"])
        # A server that froze while it made a run may do so after a second one was asked for.
        for other in found[1:]:
            self._client.delete_run(other.info.run_id)
        return found[0] if found else None

    def _experiment_id(self) -> str:
        from mlflow.exceptions import MlflowException

        if found := self._client.get_experiment_by_name(self._experiment):
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(self._experiment))
        except MlflowException:  # another run was faster, or it is a failure that shows again
            found = self._client.get_experiment_by_name(self._experiment)
            if found is None:
                raise
            return str(found.experiment_id)

    def _create(
        self, experiment: str, entry: Mapping[str, Any], info: Mapping[str, Any]
    ) -> "MlflowRun":
        return self._client.create_run(
            experiment,
            start_time=_milliseconds(entry["start_time"]),
            tags={UID: str(info["uid"])},
            run_name=str(info["job_name"]),
        )

    def _take_in(self, run: "MlflowRun") -> None:
        """Learn what MLflow has of the run."""
        self._params, self._tags = dict(run.data.params), dict(run.data.tags)
        self._status = str(run.info.status)
        self._ended = run.info.end_time
        for key in run.data.metrics:
            history = self._client.get_metric_history(run.info.run_id, key)
            self._points[key] = {
                point.step: point.value for point in sorted(history, key=lambda p: p.timestamp)
            }
        self._id = run.info.run_id

    # What it holds

    def _send_texts(self, config: Mapping[str, Any], tags: dict[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        params = {_name(key): _cut(value, MAX_PARAM) for key, value in _flat(config)}
        new = {key: value for key, value in params.items() if key not in self._params}
        known = self._params | new
        for key, value in params.items():
            if known[key] != value or CHANGED + key in self._tags:
                tags[_name(CHANGED + key)] = value
        tags = {key: _cut(value, MAX_TAG) for key, value in tags.items()}
        changed = {key: value for key, value in tags.items() if self._tags.get(key) != value}
        self._client.log_batch(
            self._id,
            params=[Param(*item) for item in new.items()],
            tags=[RunTag(*item) for item in changed.items()],
        )
        self._params, self._tags = known, self._tags | changed

    def _send_points(self) -> None:
        from mlflow.entities import Metric

        path = self.run_dir / "metrics.json"
        new = list(self._new_points(self._read(path.name))) if path.exists() else []
        self._client.log_batch(self._id, metrics=[Metric(*point) for point in new])
        for key, value, _, step in new:
            self._points.setdefault(key, {})[step] = value

    def _new_points(self, metrics: Mapping[str, Any]) -> Iterator[tuple[str, float, int, int]]:
        """Yield name, value, time and round of what MLflow lacks."""
        for name, series in metrics.items():
            key = _name(name)
            known = self._points.get(key, {})
            rows = zip(series["steps"], series["values"], series["timestamps"], strict=True)
            for step, raw, time in rows:
                value = number(raw)
                if step not in known or not _same(known[step], value):
                    yield key, value, _milliseconds(time), step

    def _send_status(self, status: str, last_sign: str | None) -> None:
        ended = _milliseconds(last_sign)
        if status == RUNNING and self._status != RUNNING:
            self._client.update_run(self._id, status)
        elif status != RUNNING and (self._status, self._ended) != (status, ended):
            self._client.set_terminated(self._id, status, ended)
            self._ended = ended
        self._status = status

    def _send_file(self, name: str) -> None:
        path = self.run_dir / name
        if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
            return
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if self._files.get(name) == digest:
            return
        with tempfile.TemporaryDirectory() as folder:
            # A copy, because the output of a run grows while it is sent.
            copy = Path(folder) / path.name
            copy.write_bytes(content)
            place = None if path.parent == self.run_dir else str(Path(name).parent)
            self._client.log_artifact(self._id, str(copy), place)
        self._files[name] = digest


def _tags(
    run_dir: Path, entry: Mapping[str, Any], info: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, str]:
    """Collect what MLflow shows beside a run, and what leads from there to its record."""
    tags = {
        UID: info["uid"],
        "scaling_fl.job_name": info["job_name"],
        "scaling_fl.status": entry["status"],
        "scaling_fl.run_folder": str(run_dir.resolve()),
        "scaling_fl.host": (info.get("attempts") or [{}])[-1].get("hostname"),
        "scaling_fl.checkpoints": config.get("checkpoints_dir"),
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": "scripts/train_federated.py",
        "mlflow.user": config.get("author"),
    }
    for repository in entry["experiment"].get("repositories", [])[:1]:
        tags["mlflow.source.git.commit"] = repository["commit"]
        tags["scaling_fl.dirty"] = json_text(repository["dirty"])
    return {key: str(value) for key, value in tags.items() if value is not None}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield each setting with its dotted path; a list is one value."""
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json_text(value)


def _name(name: str) -> str:
    """Write a name with the characters that MLflow takes, and no longer than it takes."""
    return re.sub(r"[^\w.\- :]", "_", name)[:MAX_KEY]


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else f"{text[: size - 3]}..."


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def _milliseconds(time: str | None) -> int:
    """Read an ISO-8601 time, in UTC where it has no zone, as MLflow counts; 0 for none."""
    if not time:
        return 0
    moment = datetime.fromisoformat(time)
    return round(1000 * moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())
