"""Machines started as a platform starts them are preempted, and the job goes on on new ones."""

import signal
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from scaling_fl.runtime.machines.node import read_node
from scaling_fl.runtime.storage import RemoteStorage, open_storage
from tests.e2e.commands import ROOT, Command, Job, Shell, arguments, federation
from tests.servers import Server, free_port, gcs_emulator
from tests.unit.submission.platforms import Container, containers

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.servers]

PLATFORMS: dict[str, list[str]] = {
    "kubeflow-pytorchjob": [],
    "kubeflow-trainjob": [],
    "vertex": ["--machine-type", "n1-standard-8"],
}
SECONDS_UNTIL_KILLED = 30
"""What Kubernetes, as the manifests ask it to, and Vertex AI leave after SIGTERM."""
OF_PLATFORMS = ("PET_", "MASTER_", "CLUSTER_SPEC")


@pytest.fixture(scope="module")
def store() -> Iterator[Server]:
    with gcs_emulator() as server, pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        storage = RemoteStorage("gs://bucket")
        storage.fs.mkdir(storage.root)
        yield server


class Machines:
    """New machines with empty disks, on which a platform starts what was submitted to it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.shell = Shell(folder)
        self.run = folder / "runs" / "1"

    def start(self, submitted: list[Container]) -> list[Command]:
        port = str(free_port())
        return [self._start(arguments, environ, port) for arguments, environ in submitted]

    def _start(self, arguments: list[str], environ: dict[str, str], port: str) -> Command:
        """Start a machine's container here, where the first machine has another address."""
        there = read_node([0], environ)
        here = {
            name: value.replace(there.host, "127.0.0.1").replace(str(there.port), port)
            for name, value in environ.items()
            if name.startswith(OF_PLATFORMS)
        }
        script, *rest = arguments
        return self.shell.type(sys.executable, str(ROOT / script), *rest, **(environ | here))


def submit(shell: Shell, platform: str, server: Server, settings: dict[str, object]) -> str:
    options = [f"--env={name}={value}" for name, value in server.environment.items()]
    command = ["scripts/train_federated.py", *arguments(settings)]
    size = ["--nodes=2", "--gpus=0", "--image=images/fl:1", "--dry-run", *PLATFORMS[platform]]
    script = str(ROOT / "scripts" / "submit.py")
    done = shell.type(sys.executable, script, platform, *size, *options, "--", *command)
    return done.end(expect=0).out


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_preempted_machine_ends_all_in_order_and_the_job_goes_on(
    platform: str, store: Server, tmp_path: Path, corpus: Path
) -> None:
    url = f"gs://bucket/{uuid.uuid4().hex}"
    settings = federation(
        corpus, site_ids=[0], job_name="my_job", checkpoints_dir=url, num_local_epochs=1
    )
    first, second = Machines(tmp_path / "first"), Machines(tmp_path / "second")

    def saved() -> int:
        names = [name for name in open_storage(url).names() if name.endswith("/manifest.json")]
        return max((int(name[6:12]) for name in names), default=0)

    endless = submit(first.shell, platform, store, settings | {"num_rounds": 5000})
    nodes = first.start(containers(list(yaml.safe_load_all(endless)), {}))
    nodes[0].wait_until(lambda: saved() >= 2, "round 2")
    nodes[1].signal(signal.SIGTERM)
    began = time.monotonic()
    for node in nodes:
        node.end(expect=143, patience_seconds=SECONDS_UNTIL_KILLED)
    assert time.monotonic() - began < SECONDS_UNTIL_KILLED
    assert first.shell.close() == []
    last = saved()
    bounded = submit(second.shell, platform, store, settings | {"num_rounds": last + 2})
    for node in second.start(containers(list(yaml.safe_load_all(bounded)), {})):
        node.end(expect=0)
    assert second.shell.close() == []
    assert saved() == last + 2
    job = Job(tmp_path, second.run)
    assert job.status == "COMPLETED"
    assert all(steps == [*range(1, last + 3)] for steps, _ in job.curves.values())
