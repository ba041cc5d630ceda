"""A real Slurm runs what submit.py writes, and starts it again when it dies."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.commands import (
    ROOT,
    Job,
    Shell,
    arguments,
    command_line,
    federation,
    wait_for,
    write_corpus,
)
from tests.e2e.test_sweeps import assert_one_chain, jobs, num_done, write_experiments
from tests.slurm import Slurm, missing, one_node_slurm

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.nightly,
    pytest.mark.skipif(bool(missing()), reason=missing()),
]
SUBMIT = str(ROOT / "scripts" / "submit.py")
PATIENCE_SECONDS = 240.0
QUEUE = "served"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with one_node_slurm(tmp_path_factory.mktemp("slurm")) as slurm:
        yield slurm
    for name in ("killed", QUEUE):  # where sbatch keeps what a job prints
        for path in ROOT.glob(f"slurm-{name}-*.txt"):
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


@pytest.mark.timeout(600)
def test_an_array_serves_a_queue_of_runs_and_each_is_finished_once(
    slurm: Slurm, tmp_path_factory: pytest.TempPathFactory, shell: Shell
) -> None:
    folder, corpus = shell.folder, write_corpus(tmp_path_factory.mktemp("sweep_corpus"))
    file = write_experiments(folder, corpus, num_runs=6)
    script = str(ROOT / "scripts" / "run_experiments.py")
    place = ["--sweeps-dir", str(folder / "sweeps")]
    places = [f"checkpoints_dir={folder / 'checkpoints'}", f"tracking.runs_dir={folder / 'runs'}"]
    added = [script, "--config-list", str(file), "--add-only", *place, "with", *places]
    shell.type(sys.executable, *added).end(expect=0)
    options = ["--name", QUEUE, "--nodes", "2", "--gpus", "0", "--env", "HF_HUB_OFFLINE=1"]
    command = ["--", "scripts/run_experiments.py", "--queue", "tiny", *place]
    submitted = [sys.executable, SUBMIT, "slurm", *options, *command]
    shell.type(*submitted, **slurm.environment).end(expect=0)
    wait_for(lambda: num_done(folder) >= 1, "a run", PATIENCE_SECONDS)
    os.kill(_training_process(folder), signal.SIGKILL)
    wait_for(lambda: num_done(folder) == 6, "all runs", PATIENCE_SECONDS)
    slurm.ask("scancel", f"--name={QUEUE}", "--state=PENDING")  # it would find nothing left to do
    wait_for(lambda: not slurm.states(), "the end of the array", PATIENCE_SECONDS)
    found = jobs(folder)
    assert len(found) == 6
    for job in found.values():
        job.assert_whole()
        assert_one_chain(job.events, 4)


def _training_process(folder: Path) -> int:
    """Find the process that a job of Slurm has started for runs in ``folder``."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    lines = {pid: command_line(pid) for pid in pids}
    return min(
        pid for pid, line in lines.items() if "python" in line.split(" ")[0] and str(folder) in line
    )
