"""Two machines share the queue of a sweep in a database that is away for a while."""

import sys
import time
from pathlib import Path

import pytest

from tests.databases import SecantusServer, secantus_server
from tests.e2e.commands import Command, Shell, wait_for, write_corpus
from tests.e2e.test_sweeps import PATIENCE_SECONDS, SCRIPT, assert_one_chain, jobs
from tests.e2e.test_sweeps import write_experiments as write

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def experiments(shell: Shell, server: SecantusServer, *options: str) -> Command:
    script = [sys.executable, str(SCRIPT / "run_experiments.py"), "--sweeps-dir", "mongo:"]
    return shell.type(*script, *options, SACRED_MONGO_URI=server.uri)


def shared(tmp_path: Path, *, num_runs: int) -> list[str]:
    """Share a sweep between two folders; return the names of the jobs that were finished.

    The folders stand for two machines: they have the data and the database in common alone.
    """
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    write_corpus(corpus)
    shells = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shells.append(Shell(tmp_path / name))
    file = write(tmp_path, corpus, num_runs=num_runs)
    with secantus_server(tmp_path) as server, server.client() as client:
        sweeps = client.sacred.sweeps

        def num_done() -> int:
            return int(sweeps.count_documents({"outcome": "done"}))

        experiments(shells[0], server, "--config-list", str(file), "--add-only").end(expect=0)
        assert sweeps.count_documents({"outcome": "waiting"}) == num_runs
        machines = [experiments(shell, server, "--queue", "tiny") for shell in shells]
        wait_for(lambda: num_done() >= num_runs // 4, "some runs", PATIENCE_SECONDS)
        server.stop()
        time.sleep(5.0)
        server.start()
        for machine in machines:
            machine.end(expect=0, patience_seconds=PATIENCE_SECONDS)
        assert num_done() == num_runs
        for shell in shells:  # those that ended while the database was away
            sync = [sys.executable, str(SCRIPT / "sync_runs.py")]
            shell.type(*sync, SACRED_MONGO_URI=server.uri).end(expect=0)
        assert client.sacred.runs.count_documents({"status": "COMPLETED"}) == num_runs
    found = [jobs(shell.folder) for shell in shells]
    assert all(found), "each has had its share"
    for job in [*found[0].values(), *found[1].values()]:
        job.assert_whole()
        assert_one_chain(job.events, 4)
    assert [shell.close() for shell in shells] == [[], []]
    return [*found[0], *found[1]]


def test_two_machines_share_a_sweep_and_no_run_is_doubled(tmp_path: Path) -> None:
    names = shared(tmp_path, num_runs=6)
    assert len(names) == len(set(names)) == 6


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_two_machines_share_twenty_four_runs(tmp_path: Path) -> None:
    names = shared(tmp_path, num_runs=24)
    assert len(names) == len(set(names)) == 24
