"""The database of the profile `tracking`: authenticated, healthy, durable, used by a run."""

import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from tests.docker.engine import DEBUG_IMAGE, Project, docker, inspect
from tests.e2e.commands import ROOT, Job, Shell, arguments, federation, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

STAND_IN = "scaling-fl-test:mongo"
BASE_IMAGE = "python:3.11-slim-bookworm"
"""Of the official image, the check before the database needs no more than a shell."""


class Tracking:
    """`docker compose --profile tracking`, typed in a project with its own .env."""

    def __init__(self, project: Project) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.name = f"scaling-fl-test-{uuid.uuid4().hex[:8]}"
        self.folder = project.folder
        self.user = {
            "SACRED_USER": "ann",
            "SACRED_PASSWORD": "correct-horse",
            "SACRED_HOST": f"127.0.0.1:{self.port}",
            "SACRED_DATABASE": "scaling_fl",
        }
        own = {"MONGO_IMAGE": STAND_IN, "MONGO_PORT": str(self.port)}
        lines = [f"{name}={value}" for name, value in (self.user | own).items()]
        (self.folder / ".env").write_text("\n".join(lines) + "\n")

    def compose(self, *arguments: str, expect: int = 0) -> str:
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        program = ["docker", "compose"] if plugin.returncode == 0 else ["docker-compose"]
        ended = subprocess.run(
            [*program, "--project-name", self.name, "--profile", "tracking", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == expect, ended.stderr
        return ended.stderr if expect else ended.stdout

    @property
    def health(self) -> str:
        container = self.compose("ps", "-q", "mongo").strip()
        return str(inspect("container", container)["State"]["Health"]["Status"])

    def up(self) -> None:
        self.compose("up", "-d", "mongo")
        wait_for(lambda: self.health == "healthy", "a healthy database", 60)

    def client(self, password: str = "correct-horse") -> "MongoClient[dict[str, object]]":
        address = f"mongodb://ann:{password}@127.0.0.1:{self.port}/"
        return MongoClient(address, serverSelectionTimeoutMS=5000)


@pytest.fixture
def tracking(project: Project) -> Iterator[Tracking]:
    folder = str(ROOT / "tests" / "docker" / "mongo")
    docker("build", "--tag", STAND_IN, "--build-arg", f"BASE={DEBUG_IMAGE}", folder)
    tracking = Tracking(project)
    try:
        tracking.up()
        yield tracking
    finally:
        tracking.compose("down", "--volumes")
        docker("rmi", "--force", "--no-prune", STAND_IN)
        (project.folder / ".env").unlink()


def test_a_run_is_in_the_database_which_asks_for_a_password_and_keeps_it(
    shell: Shell, project: Project, corpus: Path, tracking: Tracking
) -> None:
    changes = {"num_rounds": 2, "job_name": "job", "checkpoints_dir": "checkpoints/job"}
    command = project.train(shell, *arguments(federation(corpus, **changes))).end(expect=0)
    assert "correct-horse" not in command.out + command.err
    tracking.compose("restart", "mongo")
    wait_for(lambda: tracking.health == "healthy", "a healthy database", 60)
    job = Job(shell.folder / "checkpoints" / "job", shell.folder / "runs" / "1")
    with tracking.client() as client:
        (run,) = client["scaling_fl"]["runs"].find()
        assert run["status"] == "COMPLETED"
        stored = {m["name"]: m["values"] for m in client["scaling_fl"]["metrics"].find()}
    assert {name: stored[name] for name in job.curves} == {n: v for n, (_, v) in job.curves.items()}
    with tracking.client("wrong") as client, pytest.raises(OperationFailure):
        client["scaling_fl"]["runs"].find_one()


@pytest.mark.parametrize("lacking", ["SACRED_USER", "SACRED_PASSWORD"])
def test_a_database_that_would_let_nobody_in_is_refused(project: Project, lacking: str) -> None:
    tracking = Tracking(project)
    lines = (project.folder / ".env").read_text().splitlines()
    lines = [line for line in lines if not line.startswith((f"{lacking}=", "MONGO_IMAGE="))]
    (project.folder / ".env").write_text("\n".join([*lines, "MONGO_IMAGE=" + BASE_IMAGE]))
    try:
        said = tracking.compose("up", "-d", "mongo", expect=1)
        assert "tracking-needs-SACRED_USER-and-SACRED_PASSWORD" in said
        assert tracking.compose("ps", "-q", "mongo").strip() == ""
    finally:
        tracking.compose("down", "--volumes")
        (project.folder / ".env").unlink()
