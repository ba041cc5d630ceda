"""Two machines, played by two commands: one federation, and one end whatever happens to either."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.commands import Command, Job, Shell, arguments, federation, write_corpus

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


class Machines:
    """Two nodes of one federation with sites [0, 0] and [0]; node 0 keeps the record."""

    def __init__(self, shell: Shell, corpus: Path) -> None:
        self.shell, self.corpus = shell, corpus
        self.job = Job(shell.folder / "checkpoints", shell.folder / "runs" / "1")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])

    def start(
        self, rank: int, *, environ: dict[str, str] | None = None, **changes: object
    ) -> Command:
        sites = {
            "site_ids": [[0, 0], [0]][rank],
            "job_name": "job",
            "checkpoints_dir": "checkpoints",
        }
        cluster = {"WORLD_SIZE": "2", "RANK": str(rank), "MASTER_ADDR": "127.0.0.1"}
        return self.shell.train(
            *arguments(federation(self.corpus, **(sites | changes))),
            **(cluster | {"MASTER_PORT": self.port} | (environ or {})),
        )

    def start_both(
        self, *, environ: dict[str, str] | None = None, **changes: object
    ) -> list[Command]:
        return [self.start(rank, environ=environ, **changes) for rank in (0, 1)]

    def start_and_reach_round_2(self, *, environ: dict[str, str] | None = None) -> list[Command]:
        """Start a federation that would go on for long."""
        nodes = self.start_both(environ=environ, num_rounds=5000, save_every=5000)
        nodes[0].wait_until(lambda: self.job.last_round >= 2, "round 2")
        return nodes

    def kill(self, rank: int, whom: str, number: int) -> list[str]:
        """Send a signal to a node's parent or worker; return both nodes' errors at their end.

        The error of a process that was killed itself is the empty string.
        """
        nodes = self.start_and_reach_round_2(environ={"SCALING_FL_SILENCE_SECONDS": "6"})
        pid = nodes[rank].pid if whom == "parent" else nodes[rank].workers()[0]
        os.kill(pid, number)
        began = time.monotonic()
        for node in nodes:
            is_victim = node.pid == pid
            node.end(expect=-number if is_victim else 1, patience_seconds=60)
        assert self.shell.seconds_until_empty() + time.monotonic() - began < 60
        return ["" if node.pid == pid else node.error for node in nodes]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def machines(tmp_path: Path, corpus: Path) -> Iterator[Machines]:
    shell = Shell(tmp_path)
    yield Machines(shell, corpus)
    assert shell.close() == []


def test_two_machines_equal_one(machines: Machines, tmp_path: Path) -> None:
    nodes = machines.start_both()
    for node in nodes:
        node.end(expect=0)
        assert "3 sites on 2 CPU workers" in node.out
        assert "Error" not in node.err
    alone = machines.shell.folder / "alone"
    alone.mkdir()
    settings = federation(machines.corpus, site_ids=[0], num_rounds=6)
    places = {"checkpoints_dir": alone / "checkpoints", "tracking.runs_dir": alone / "runs"}
    machines.shell.train(*arguments(settings | places)).end(expect=0)
    one = Job(alone / "checkpoints", alone / "runs" / "1")
    assert machines.job.digest == one.digest
    assert machines.job.curves == one.curves
    assert machines.job.status == "COMPLETED"
    assert [path.name for path in (tmp_path / "runs").glob("[0-9]*")] == ["1"]


@pytest.mark.parametrize(
    ("rank", "whom", "errors"),
    [
        (
            0,
            "worker",
            ["was ended by SIGKILL", "the first worker, to which all others connect, is"],
        ),
        (1, "worker", [f"because worker 1 on {socket.gethostname()} is gone", "ended by SIGKILL"]),
        (0, "parent", ["", "its parent process is gone"]),
        (1, "parent", ["its parent process is gone", ""]),
    ],
)
def test_a_killed_process_ends_both_machines_with_one_error_each(
    machines: Machines, rank: int, whom: str, errors: list[str]
) -> None:
    found = machines.kill(rank, whom, signal.SIGKILL)
    assert all(part in error for part, error in zip(errors, found, strict=True)), found
    if (rank, whom) != (0, "parent"):
        assert machines.job.status == "FAILED"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_machine_that_stands_still_ends_both(machines: Machines, rank: int) -> None:
    found = machines.kill(rank, "worker", signal.SIGSTOP)
    assert "has been silent for" in found[rank]
    assert "has been silent for" in found[1 - rank] or "has not answered for" in found[1 - rank]


@pytest.mark.parametrize("rank", [0, 1])
def test_stopping_one_machine_stops_both_in_order(machines: Machines, rank: int) -> None:
    nodes = machines.start_and_reach_round_2()
    nodes[rank].signal(signal.SIGTERM)
    for node in nodes:
        node.end(expect=143, patience_seconds=30)
    assert f"stopped because worker {rank} on " in nodes[1 - rank].out
    assert machines.job.status == "INTERRUPTED"
    machines.job.assert_whole()
    last = machines.job.last_round
    assert (machines.job.checkpoints / f"round-{last:06d}" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("rank", "error"),
    [
        (0, "node 1 of 2 did not start within 2 s; start it with RANK=1 or lower WORLD_SIZE."),
        (1, "the first machine did not answer at 127.0.0.1:"),
    ],
)
def test_a_machine_that_never_comes_is_named(machines: Machines, rank: int, error: str) -> None:
    node = machines.start(rank, environ={"SCALING_FL_JOIN_SECONDS": "2"})
    assert error in node.end(expect=1, patience_seconds=60).error


def test_machines_with_different_settings_say_which(machines: Machines) -> None:
    nodes = [machines.start(0, num_rounds=5), machines.start(1, num_rounds=4, learning_rate=0.5)]
    for node in nodes:
        node.end(expect=1, patience_seconds=60)
    assert "learning_rate is 0.01 here and 0.5, num_rounds is 5 here and 4" in nodes[0].error
    assert "learning_rate is 0.5 here and 0.01, num_rounds is 4 here and 5" in nodes[1].error


def test_machines_that_count_differently_do_not_wait_for_ever(machines: Machines) -> None:
    nodes = [machines.start(0), machines.start(1, environ={"WORLD_SIZE": "3"})]
    for node in nodes:
        assert "WORLD_SIZE is" in node.end(expect=1, patience_seconds=60).error


def test_the_own_error_of_one_machine_is_shown_on_both(machines: Machines, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("id,text,writer\nid0,raven,EAP\n")
    nodes = [machines.start(0), machines.start(1, train_path=wrong)]
    for node, code in zip(nodes, (1, 2), strict=True):  # the second has to change something
        node.end(expect=code, patience_seconds=60)
        assert "column 'author'" in node.error
    assert "stopped because worker 1 on " in nodes[0].error


def test_a_port_in_use_is_named(machines: Machines) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(machines.port)))
        taken.listen()
        error = machines.start(0).end(expect=1, patience_seconds=60).error
    assert f"MASTER_PORT must be free on this machine, but port {machines.port} could" in error
