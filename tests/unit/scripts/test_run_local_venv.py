"""RUNTIME=venv: which .venv is made anew, and which is left alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PYTHON = f"""#!/bin/sh
# Makes an environment without pip, so that nothing is installed.
if [ "$1 $2" = "-m venv" ]; then shift 2; set -- -m venv --without-pip "$@"; fi
exec {sys.executable} "$@"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("run-local.sh", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    monkeypatch.setenv("PYTHON", str(python))
    monkeypatch.setenv("RUNTIME", "venv")
    return folder


def set_up(project: Path) -> list[str]:
    """Set up until something is to be installed; returns the lines of the standard error."""
    command = [str(project / "run-local.sh"), "pytest"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    return done.stderr.splitlines()


def some_environment(folder: Path, *, config: bool) -> Path:
    """Make what looks like an environment; returns a file that only clearing takes away."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    (folder / "mine").write_text("x")
    if config:
        home = f"home = {Path(sys.base_prefix) / 'bin'}"
        (folder / "pyvenv.cfg").write_text(f"{home}\ninclude-system-site-packages = false\n")
    return folder / "mine"


def test_an_environment_without_its_configuration_is_made_anew(project: Path) -> None:
    mine = some_environment(project / ".venv", config=False)
    lines = set_up(project)
    assert lines[-1].endswith("then run the same command again.")  # there is no pip
    assert (project / ".venv" / "pyvenv.cfg").is_file()
    assert not mine.exists()


def test_a_whole_environment_is_brought_up_to_date(project: Path) -> None:
    mine = some_environment(project / ".venv", config=True)
    lines = set_up(project)
    assert "bringing .venv up to date" in lines[1]
    assert mine.exists()


@pytest.mark.parametrize("target", ["../another", "../gone", "environments", "."])
def test_what_a_link_leads_to_is_left_alone(project: Path, target: str) -> None:
    folders = (project.parent / "another", project / "environments")
    files = [some_environment(folder, config=False) for folder in folders]
    (project / ".venv").symlink_to(target)
    _, refusal = set_up(project)
    assert refusal.startswith("run-local: .venv must not be a link, because")
    assert f"got a link to {target};" in refusal
    assert all(file.exists() for file in (*files, project / "run-local.sh"))
    assert not (project.parent / "gone").exists()
