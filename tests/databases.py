"""A MongoDB-compatible server in a process of its own, and what must be in it."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import gridfs
from pymongo import MongoClient
from pymongo.database import Database

from scaling_fl.runtime.tracking.mongo_delivery import MongoDelivery
from scaling_fl.runtime.tracking.run_folder import RunFolder

Mongo = Database[dict[str, Any]]
USER, PASSWORD = "ann", "p@ss/w:rd%2B secret"
START_SECONDS = 30.0


@dataclass
class SecantusServer:
    """One server on one port with one data folder; ``start`` after ``stop`` finds the same data."""

    storage: Path
    port: int
    auth: bool = False
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def uri(self) -> str:
        user_info = f"{quote_plus(USER)}:{quote_plus(PASSWORD)}@" if self.auth else ""
        return f"mongodb://{user_info}{self.host}/"

    def start(self) -> None:
        self._spawn("--auth") if self.auth else self._spawn()

    def stop(self) -> None:
        """End the server as a crash does; it has once not ended within 30 s of SIGTERM."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(timeout=START_SECONDS)
            self.process = None

    def freeze(self) -> None:
        """Leave the connections open but answer nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def client(self) -> "MongoClient[dict[str, Any]]":
        return MongoClient(self.uri, serverSelectionTimeoutMS=10_000)

    def add_user(self) -> None:
        """Make the user that ``auth`` asks for; users can be made only while it is off."""
        self._spawn()
        roles = [{"role": "readWriteAnyDatabase", "db": "admin"}]
        with MongoClient[dict[str, Any]](f"mongodb://{self.host}/") as client:
            client.admin.command("createUser", USER, pwd=PASSWORD, roles=roles)
        self.stop()

    def _spawn(self, *options: str) -> None:
        program = str(Path(sys.executable).with_name("secantusd-py"))
        where = ["--host", "127.0.0.1", "--port", str(self.port)]
        # Without a sync at every commit this server loses acknowledged writes when it is killed.
        keep = ["--storage-path", str(self.storage), "--sync-on-commit", "--log-level", "ERROR"]
        self.process = subprocess.Popen(
            [program, *where, *keep, *options],
            cwd=self.storage.parent,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait_until_up()

    def _wait_until_up(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"secantusd-py ended with code {self.process.returncode}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.02)
        raise RuntimeError(f"secantusd-py did not open port {self.port}")


@contextlib.contextmanager
def secantus_server(
    folder: Path, *, auth: bool = False, started: bool = True
) -> Iterator[SecantusServer]:
    """Run a server with its data under ``folder``; it is ended in any case."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = SecantusServer(folder / "secantus-data", port, auth)
    try:
        if auth:
            server.add_user()
        if started:
            server.start()
        yield server
    finally:
        server.stop()


def sync(run_dir: Path, database: Mongo) -> int:
    """Deliver a run folder; return the run's number."""
    return MongoDelivery(run_dir, database).send()


def the_run(database: Mongo) -> dict[str, Any]:
    [run] = database.runs.find()
    return run


def check_delivered(database: Mongo, folder: RunFolder) -> None:
    """Check that the database holds what the folder holds: nothing doubled, nothing lost."""
    run = the_run(database)
    metrics = json.loads((folder.path / "metrics.json").read_text())
    stored = {found["name"]: found for found in database.metrics.find({"run_id": run["_id"]})}
    assert database.metrics.count_documents({}) == len(stored) == len(metrics)
    for name, points in metrics.items():
        assert stored[name]["steps"] == points["steps"]
        assert stored[name]["values"] == points["values"]
        assert len(stored[name]["timestamps"]) == len(points["steps"])
    assert run["info"]["metrics"] == [{"name": n, "id": str(stored[n]["_id"])} for n in metrics]
    assert run["status"] == json.loads((folder.path / "run.json").read_text())["status"]
    _check_files(database, run, folder)


def _check_files(database: Mongo, run: dict[str, Any], folder: RunFolder) -> None:
    files = gridfs.GridFS(database)
    for artifact in run["artifacts"]:
        assert (
            files.get(artifact["file_id"]).read() == (folder.path / artifact["name"]).read_bytes()
        )
    assert [a["name"] for a in run["artifacts"]] == folder.run_entry["artifacts"]
    used = {a["file_id"] for a in run["artifacts"]} | {s[1] for s in run["experiment"]["sources"]}
    sizes = {file["_id"]: file["length"] for file in database["fs.files"].find()}
    assert sizes.keys() == used
    filled = {file for file, size in sizes.items() if size}  # an empty one has no chunk
    assert {chunk["files_id"] for chunk in database["fs.chunks"].find()} == filled
