"""Started by torchrun: the same federation, and still one tracked run."""

import sys
from pathlib import Path

import pytest

from tests.e2e.commands import TRAIN, Command, Job, Shell, arguments, federation

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def torchrun(shell: Shell, corpus: Path, *, num_processes: int) -> Command:
    settings = federation(corpus, job_name="job", checkpoints_dir="checkpoints")
    module = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    how_many = ["--nproc-per-node", str(num_processes)]
    return shell.type(*module, *how_many, *TRAIN[1:], *arguments(settings))


def test_equals_the_plain_command_and_is_one_run(shell: Shell, corpus: Path, whole: Job) -> None:
    command = torchrun(shell, corpus, num_processes=2).end(expect=0)
    job = Job(shell.folder / "checkpoints", shell.folder / "runs" / "1")
    assert job.digest == whole.digest
    assert job.curves == whole.curves
    assert job.status == "COMPLETED"
    assert [path.name for path in job.run.parent.glob("[0-9]*")] == ["1"]
    assert command.out.count("round 1/6 |") == 1


def test_a_wrong_number_of_processes_is_one_error(shell: Shell, corpus: Path) -> None:
    command = torchrun(shell, corpus, num_processes=3).end(expect=1)
    errors = [line for line in command.err.splitlines() if line.startswith("Error: ")]
    assert errors == [
        "Error: torchrun must start one process per distinct id in site_ids, got 3 for "
        "site_ids=[0, 1]; use --nproc-per-node 2."
    ]
    assert not (shell.folder / "runs").exists()
