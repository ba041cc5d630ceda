"""The batch script says what was asked for, and what a user wrote into it stays."""

import os
import shlex
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scaling_fl.submission import slurm
from scaling_fl.submission.manifests import ManifestError
from scaling_fl.submission.request import Request
from tests.unit.submission.platforms import ROOT

TRAIN = ("scripts/train_federated.py", "with", "demo", "author=A B; $HOME")
SERVE = ("scripts/run_experiments.py", "--queue", "grid")


def request(**changes: Any) -> Request:
    given: dict[str, Any] = {"nodes": 3, "gpus": 4, "image": "", "name": "job", "arguments": TRAIN}
    return Request(platform="slurm", **(given | changes))


def options(script: str) -> dict[str, str]:
    """Read the options as sbatch does: before the first command, and the last one counts."""
    found = {}
    for line in script.splitlines():
        if line.startswith("#SBATCH --"):
            name, _, value = line.removeprefix("#SBATCH --").partition("=")
            found[name] = value
        elif line.strip() and not line.startswith("#"):
            break
    return found


def test_a_federation_takes_all_nodes_of_one_job() -> None:
    found = options(slurm.fill(slurm.read(ROOT), request(partition="gpu", time_limit="8:00:00")))
    assert found["job-name"] == "job"
    assert (found["nodes"], found["gpus-per-node"], found["ntasks-per-node"]) == ("3", "4", "1")
    assert (found["partition"], found["time"]) == ("gpu", "8:00:00")
    assert "array" not in found
    assert "requeue" in found


def test_workers_of_a_queue_are_an_array_of_single_nodes() -> None:
    found = options(slurm.fill(slurm.read(ROOT), request(arguments=SERVE, gpus=0)))
    assert (found["nodes"], found["array"]) == ("1", "0-2")
    assert "gpus-per-node" not in found


def test_own_lines_stay() -> None:
    own = "#SBATCH --constraint=a100\n#SBATCH --signal"
    text = slurm.read(ROOT).replace("#SBATCH --signal", own)
    script = slurm.fill(text.replace("code=0", "module load cuda\ncode=0"), request())
    assert options(script)["constraint"] == "a100"
    assert "\nmodule load cuda\n" in script


@pytest.mark.parametrize(("code", "goes_again"), [(0, False), (1, True), (143, True)])
def test_the_script_runs_the_command_and_asks_for_another_start(
    code: int, goes_again: bool, tmp_path: Path
) -> None:
    asked = run_script(slurm.fill(slurm.read(ROOT), request(environ=["A=1 2"])), code, tmp_path)
    assert asked["run"] == ["1 2", "3", "0", *TRAIN]
    assert asked["requeued"] == (["7"] if goes_again else [])


@pytest.mark.parametrize(("code", "restarts"), [(2, 0), (1, 10)])
def test_what_would_fail_again_is_not_started_again(
    code: int, restarts: int, tmp_path: Path
) -> None:
    script = slurm.fill(slurm.read(ROOT), request())
    assert run_script(script, code, tmp_path, SLURM_RESTART_COUNT=str(restarts))["requeued"] == []


def test_a_task_of_an_array_asks_for_itself_alone(tmp_path: Path) -> None:
    variables = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    script = slurm.fill(slurm.read(ROOT), request(arguments=SERVE))
    assert run_script(script, 1, tmp_path, **variables)["requeued"] == ["7_2"]


def run_script(script: str, code: int, folder: Path, **environ: str) -> dict[str, list[str]]:
    """Run a batch script where srun starts its command once, which notes how it was called."""
    programs = {
        "srun": 'shift; SLURM_NNODES=3 SLURM_NODEID=0 "$@"',
        "scontrol": 'echo "$2" >> requeued',
        "run-local.sh": f'printf "%s\\0" "$A" "$WORLD_SIZE" "$RANK" "$@" > run; exit {code}',
    }
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(stat.S_IRWXU)
    environ = {"SLURM_JOB_ID": "7", "PATH": f"{folder}:{os.environ['PATH']}", **environ}
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environ, check=False)
    assert done.returncode == code
    requeued = folder / "requeued"
    return {
        "run": (folder / "run").read_text().split("\0")[:-1],
        "requeued": requeued.read_text().split() if requeued.exists() else [],
    }


def test_a_script_without_options_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / slurm.FILE).write_text("#!/bin/bash\n")
    with pytest.raises(ManifestError, match="must have a line that begins with #SBATCH --"):
        slurm.read(tmp_path)
    assert shlex.join(TRAIN) in slurm.fill(slurm.read(ROOT), request())
