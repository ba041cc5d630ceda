"""A debugger that attaches through the published port stops in the round loop."""

import os
from pathlib import Path

import pytest

from tests.debugger import Debugger, debugger
from tests.docker.engine import Project
from tests.e2e.commands import Job, Shell, arguments, federation

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

PORT = 5678
ROOT_INSIDE = "/workspace"
FILES = "docker-compose.yaml:docker-compose.debug.yaml"


@pytest.fixture
def settings(corpus: os.PathLike[str]) -> list[str]:
    changes = {"num_rounds": 2, "job_name": "job", "checkpoints_dir": "checkpoints/job"}
    return arguments(federation(corpus, **changes))  # type: ignore[arg-type]


def assert_complete(shell: Shell) -> None:
    job = Job(shell.folder / "checkpoints" / "job", shell.folder / "runs" / "1")
    assert (job.status, job.last_round) == ("COMPLETED", 2)


@pytest.mark.parametrize("worker", [pytest.param("0", marks=pytest.mark.nightly), "1"])
def test_a_worker_waits_stops_in_the_round_loop_and_goes_on(
    project: Project, shell: Shell, settings: list[str], worker: str
) -> None:
    environ = {"COMPOSE_FILE": FILES, "SCALING_FL_DEBUG_WORKER": worker}
    command = project.train(shell, *settings, **environ)
    with debugger(
        command, f"worker {worker} waits for a debugger on port {PORT}", PORT, ROOT_INSIDE
    ) as client:
        client.attach()
        assert client.value_of("number") == "1"
        command.end(expect=0)
    assert_complete(shell)


def test_the_command_waits_and_its_workers_follow(
    project: Project, shell: Shell, settings: list[str]
) -> None:
    command = project.train(shell, *settings, COMPOSE_FILE=FILES)
    with debugger(command, "waiting for a debugger on port 5678", PORT, ROOT_INSIDE) as client:
        client.attach()
        workers = []
        for _ in range(2):
            child = client.event("debugpyAttach")
            worker = Debugger(PORT, ROOT_INSIDE)
            worker.attach(subProcessId=child["subProcessId"])
            workers.append(worker)
        assert [worker.value_of("number") for worker in workers] == ["1", "1"]
        command.end(expect=0)
        for worker in workers:
            worker.close()
    assert_complete(shell)


def test_the_port_is_open_on_the_loopback_alone(
    project: Project, shell: Shell, settings: list[str]
) -> None:
    command = project.train(shell, *settings, COMPOSE_FILE=FILES)
    command.wait_until_it_says("waiting for a debugger")
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {local for _, local, _, state, *_ in sockets if state == "0A"}
    of_port = {address for address in listening if address.endswith(f":{PORT:04X}")}
    assert of_port == {f"0100007F:{PORT:04X}"}
    os.killpg(command.pid, 15)
    command.process.wait(60)
