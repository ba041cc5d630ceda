"""Two starts of one job: the second one waits in vain and leaves no trace."""

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.e2e.commands import Job, Shell, arguments, federation

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_a_second_live_run_is_refused_naming_the_first(shell: Shell, corpus: Path) -> None:
    settings = federation(
        corpus, site_ids=[0], num_rounds=5000, job_name="job", checkpoints_dir="checkpoints"
    )
    first = shell.train(*arguments(settings))
    job = Job(shell.folder / "checkpoints", shell.folder / "runs" / "1")
    first.wait_until(lambda: job.last_round, "round 1")
    os.kill(first.pid, signal.SIGSTOP)  # so that nothing in the run folder changes by itself
    before = snapshot(job.run)
    other = settings | {"tracking.runs_dir": "other_runs"}
    for typed in (settings, other):
        error = shell.train(*arguments(typed)).end(expect=1).error
        assert (
            f"is in use by a run on host {socket.gethostname()}, process {first.pid}, started 2"
            in error
        )
        assert "wait until that run ends or stop it, or choose another job_name" in error
    assert snapshot(job.run) == before
    assert not (shell.folder / "other_runs").exists()
    assert [path.name for path in job.run.parent.glob("[0-9]*")] == ["1"]
    os.kill(first.pid, signal.SIGCONT)
    first.signal(signal.SIGTERM).end(expect=143)
    assert job.status == "INTERRUPTED"


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
