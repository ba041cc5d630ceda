"""A real Slurm runs what submit.py writes, and starts it again when it dies."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.commands import ROOT, Job, Shell, arguments, command_line, federation, wait_for
from tests.slurm import Slurm, missing, one_node_slurm

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.nightly,
    pytest.mark.skipif(bool(missing()), reason=missing()),
]
SUBMIT = str(ROOT / "scripts" / "submit.py")
PATIENCE_SECONDS = 240.0


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with one_node_slurm(tmp_path_factory.mktemp("slurm")) as slurm:
        yield slurm
    for path in ROOT.glob("slurm-killed-*.txt"):  # where sbatch keeps what a job prints
        path.unlink()


def test_a_federation_that_is_killed_goes_on_when_slurm_starts_it_again(
    slurm: Slurm, corpus: Path, whole: Job, shell: Shell
) -> None:
    folder = shell.folder
    places = {"checkpoints_dir": folder / "checkpoints", "tracking.runs_dir": folder / "runs"}
    settings = federation(corpus, job_name="killed", **places)
    job = Job(folder / "checkpoints", folder / "runs" / "1")
    options = ["--gpus", "0", "--env", "HF_HUB_OFFLINE=1"]
    command = ["--", "scripts/train_federated.py", *arguments(settings)]
    shell.type(sys.executable, SUBMIT, "slurm", *options, *command, **slurm.environment).end(
        expect=0
    )
    wait_for(lambda: job.last_round >= 2, "two rounds", PATIENCE_SECONDS)
    os.kill(_training_process(folder), signal.SIGKILL)
    wait_for(lambda: "PENDING" in slurm.states(), "the job to be queued again", PATIENCE_SECONDS)
    # Slurm waits two minutes before it starts a job again.
    number = slurm.ask("squeue", "--noheader", "--format=%i")
    slurm.ask("scontrol", "update", f"jobid={number}", "starttime=now")
    wait_for(lambda: not slurm.states(), "the end of the job", PATIENCE_SECONDS)
    assert job.status == "COMPLETED"
    assert job.digest == whole.digest


def _training_process(folder: Path) -> int:
    """Find the process that a job of Slurm has started for a run in ``folder``."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    lines = {pid: command_line(pid) for pid in pids}
    return min(
        pid for pid, line in lines.items() if "python" in line.split(" ")[0] and str(folder) in line
    )
