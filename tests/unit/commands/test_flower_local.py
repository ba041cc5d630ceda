"""What nodes remember can be listed and forgotten, of a deployment or of one node."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scaling_fl.commands.flower_local import main_forget, main_start
from scaling_fl.flower.deployment import Deployment
from scaling_fl.runtime.record.turns import TurnFiles

pytest.importorskip("flwr")


@pytest.fixture
def fed(tmp_path: Path) -> Path:
    """A deployment whose first node remembers two jobs, the second one of them."""
    made = Deployment(tmp_path / "fed", 2)
    made.folder.mkdir()
    made.write()
    for node, jobs in (("node0", ("first", "second")), ("node1", ("second",))):
        for job in jobs:
            files = TurnFiles(made.folder / node / "memory" / f"uid-of-{job}", job)
            files.keep(3, 1, {"kept": torch.ones(250)})
    return made.folder


def test_all_jobs_are_listed(fed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main_forget(fed, None) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "node0 remembers first (uid-of-first)",
        "node0 remembers second (uid-of-second)",
        "node1 remembers second (uid-of-second)",
    ]
    assert all(" 1 client, 1.1 kB" in line for line in lines)


@pytest.mark.parametrize("job", ["second", "uid-of-second"])
def test_a_job_is_forgotten_by_all_nodes(
    fed: Path, job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_forget(fed, job) == 0
    assert capsys.readouterr().out.count("has forgotten second") == 2
    assert [path.name for path in fed.glob("node*/memory/*")] == ["uid-of-first"]


def test_one_node_forgets_alone(fed: Path) -> None:
    assert main_forget(fed / "node1", "second") == 0
    assert sorted(path.name for path in fed.glob("node*/memory/*")) == [
        "uid-of-first",
        "uid-of-second",
    ]


def test_a_job_that_nobody_remembers_is_refused(
    fed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_forget(fed, "third") == 1
    said = capsys.readouterr().err
    assert f"JOB must be one that the nodes of {fed} remember (first, second), got third" in said


def test_test_data_without_data_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = {"--data": None, "--test-data": "t.csv"}
    assert main_start(tmp_path / "new", 2, tables) == 2
    assert "--test-data needs --data" in capsys.readouterr().err


def test_the_commands_can_be_read_without_the_extra() -> None:
    without = "import sys; sys.modules.update(flwr=None, Crypto=None);"
    commands = "import scaling_fl.commands.flower_local, scaling_fl.commands.flower_run"
    done = subprocess.run([sys.executable, "-c", f"{without} {commands}"], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
