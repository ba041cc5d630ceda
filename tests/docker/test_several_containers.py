"""Two containers with addresses of their own form one job, end together, and resume on one."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.engine import TRAIN_IMAGE, Project, docker
from tests.e2e.commands import Command, Job, Shell, arguments, federation, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]


class Cluster:
    """A network of containers; each one is a machine, and they share the checkpoints' folder."""

    def __init__(self, shell: Shell, corpus: Path) -> None:
        self.shell, self.corpus = shell, corpus
        self.name = f"scaling-fl-test-{uuid.uuid4().hex[:8]}"
        docker("network", "create", self.name)

    def start(self, rank: int, num_nodes: int = 2, **changes: object) -> Command:
        """Start one machine with sites [0, 0] or [0]; alone it runs all three."""
        sites = [[0, 0], [0]][rank] if num_nodes == 2 else [0, 0, 0]
        place = {"site_ids": sites, "job_name": "job", "checkpoints_dir": "checkpoints/job"}
        texts = {f"{name}_path": f"data/{name}.csv" for name in ("train", "test")}
        cluster = {
            "WORLD_SIZE": num_nodes,
            "RANK": rank,
            "MASTER_ADDR": f"{self.name}-0",
            "MASTER_PORT": 23456,
            "SCALING_FL_SILENCE_SECONDS": 6,
        }
        options = [f"--env={name}={value}" for name, value in cluster.items()]
        runs = self.shell.folder / f"runs-{rank}"
        runs.mkdir(exist_ok=True)
        (self.shell.folder / "checkpoints").mkdir(exist_ok=True)
        volumes = [
            f"--volume={self.corpus}:/workspace/data",
            f"--volume={runs}:/workspace/runs",
            f"--volume={self.shell.folder / 'checkpoints'}:/workspace/checkpoints",
        ]
        name = f"{self.name}-{rank}"
        identity = [f"--name={name}", f"--network={self.name}", f"--hostname={name}"]
        user = f"--user={os.getuid()}:{os.getgid()}"
        settings = federation(
            self.corpus, **texts, **{"data.cache_dir": "data/cache"}, **(place | changes)
        )
        return self.shell.type(
            *["docker", "run", "--rm", "--init", user, *identity, *options, *volumes, TRAIN_IMAGE],
            *["scripts/train_federated.py", *arguments(settings)],
        )

    @property
    def job(self) -> Job:
        return Job(self.shell.folder / "checkpoints" / "job", self.shell.folder / "runs-0" / "1")

    def close(self) -> None:
        docker("rm", "--force", *[f"{self.name}-{rank}" for rank in (0, 1)], check=False)
        wait_for(lambda: docker("network", "rm", self.name, check=False).returncode == 0, "", 20)


@pytest.fixture
def cluster(project: Project, shell: Shell, corpus: Path) -> Iterator[Cluster]:
    cluster = Cluster(shell, corpus)
    yield cluster
    cluster.close()


def test_two_containers_equal_one_machine(cluster: Cluster, whole: Job) -> None:
    machines = [cluster.start(rank) for rank in (0, 1)]
    for machine in machines:
        machine.end(expect=0)
        assert "3 sites on 2 CPU workers" in machine.out
    assert cluster.job.digest == whole.digest
    assert cluster.job.curves == whole.curves


@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=pytest.mark.nightly)])
def test_killing_one_ends_the_other_and_one_container_finishes_the_job(
    cluster: Cluster, rank: int
) -> None:
    machines = [cluster.start(r, num_rounds=5000, save_every=1) for r in (0, 1)]
    machines[0].wait_until(lambda: cluster.job.last_round >= 2, "round 2")
    docker("kill", f"{cluster.name}-{rank}")
    machines[1 - rank].end(expect=1, patience_seconds=60)
    assert "worker" in machines[1 - rank].error
    machines[rank].end(expect=137)
    last = cluster.job.last_round
    cluster.start(0, num_nodes=1, num_rounds=last + 2).end(expect=0)
    assert (cluster.job.status, cluster.job.last_round) == ("COMPLETED", last + 2)
    assert cluster.job.curves["train.loss"][0] == list(range(1, last + 3))
