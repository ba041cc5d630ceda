"""A real MLflow server with its data in SQLite, and what a run folder must be in it."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import wait_for
from tests.servers import free_port
from tests.tracked_runs import milliseconds_of

FOLDER = Path(__file__).parents[1] / ".mlflow"
START_SECONDS = 120.0


@dataclass
class MlflowServer:
    """One server on one port with one data folder; ``start`` after ``stop`` finds the same data."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        where = [f"--port={self.port}", "--host=127.0.0.1", "--workers=1"]
        store = [f"--backend-store-uri=sqlite:///{self.folder}/runs.db"]
        store += [f"--artifacts-destination={self.folder}/artifacts"]
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *where, *store],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(self._answers, f"the MLflow server, see {self.folder}/log.txt", START_SECONDS)

    def stop(self) -> None:
        """End the server as a crash does."""
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _environment(self) -> dict[str, str]:
        hidden = ("MLFLOW_", "PYTHONPATH")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
        off = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        return kept | off | {"PYTHONPATH": str(FOLDER)}

    def _answers(self) -> bool:
        assert self.process
        assert self.process.poll() is None, (self.folder / "log.txt").read_text()
        with contextlib.suppress(OSError):
            return bool(urllib.request.urlopen(f"{self.uri}/health", timeout=5).status == 200)
        return False


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[MlflowServer]:
    """Run a server with its data in ``folder``; the test is skipped where none is installed."""
    if not (FOLDER / ".ready").is_file():
        pytest.skip("no MLflow server is installed here; .ci/run installs one")
    server = MlflowServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def client_of(server: MlflowServer) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=server.uri)


def the_run(client: Any, experiment: str) -> Any:
    """Find the only run of an experiment."""
    [run] = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return run


Points = dict[str, list[tuple[int, float | None, int]]]
"""Of each metric all points as (step, value, time in ms), None for nan."""


def points_of(client: Any, run: Any) -> Points:
    return {
        key: sorted(
            (point.step, None if math.isnan(point.value) else point.value, point.timestamp)
            for point in client.get_metric_history(run.info.run_id, key)
        )
        for key in run.data.metrics
    }


def expected_points(run_dir: Path) -> Points:
    """Say which points MLflow should have, from metrics.json."""
    metrics = json.loads((run_dir / "metrics.json").read_text())
    return {
        name: [
            (step, value, milliseconds_of(time))
            for step, value, time in zip(
                series["steps"], series["values"], series["timestamps"], strict=True
            )
        ]
        for name, series in metrics.items()
    }


def check_delivered(server: MlflowServer, experiment: str, run_dir: Path) -> Any:
    """Check that MLflow has what the folder has: nothing doubled, nothing lost."""
    client = client_of(server)
    run = the_run(client, experiment)
    assert points_of(client, run) == expected_points(run_dir)
    assert run.data.tags["scaling_fl.uid"] == json.loads((run_dir / "info.json").read_text())["uid"]
    return run
