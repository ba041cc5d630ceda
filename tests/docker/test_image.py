"""The images by themselves: what they are, what they lack, and how little they need to run."""

import os
import re
from pathlib import Path

import pytest

from tests.docker.engine import DEBUG_IMAGE, TRAIN_IMAGE, Project, docker, image_files, inspect
from tests.e2e.commands import ROOT, Job, Shell, arguments, federation

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]


def run(shell: Shell, *options: str, settings: dict[str, object], expect: int = 0) -> str:
    """Run the training image by hand, as this user; returns all that it printed."""
    user = f"{os.getuid()}:{os.getgid()}"
    command = ["docker", "run", "--rm", "--user", user, *options, TRAIN_IMAGE]
    given = arguments({"num_rounds": 2, **settings})
    ended = shell.type(*command, "scripts/train_federated.py", *given).end(expect=expect)
    return ended.out + ended.err


@pytest.fixture
def settings(corpus: Path) -> dict[str, object]:
    texts = {f"{name}_path": f"/workspace/data/{name}.csv" for name in ("train", "test")}
    small = federation(corpus, **texts, num_rounds=2, job_name="job")
    return small | {"data.cache_dir": "/workspace/cache", "checkpoints_dir": "checkpoints/job"}


@pytest.fixture
def mounts(shell: Shell, corpus: Path) -> list[str]:
    """Return the options that mount everything that a run writes to, and the texts."""
    folders = [shell.folder / name for name in ("runs", "checkpoints", "cache")]
    for folder in folders:
        folder.mkdir()
    volumes = [f"--volume={folder}:/workspace/{folder.name}" for folder in folders]
    return [*volumes, f"--volume={corpus}:/workspace/data:ro"]


def test_labels_user_and_contents(project: Project) -> None:
    train = inspect("image", TRAIN_IMAGE)["Config"]
    assert train["Labels"]["org.opencontainers.image.version"] == "0.1.0"
    assert train["Labels"]["org.opencontainers.image.revision"] == project.commit
    assert train["User"] == "scaling"
    assert inspect("image", DEBUG_IMAGE)["Config"]["User"] == "scaling"
    parts = {name.split("/")[2] for name in image_files(TRAIN_IMAGE)}
    assert not parts & {"tests", ".git", ".env", "Dockerfile", "run-local.sh", "benchmarks"}
    installed = docker("run", "--rm", TRAIN_IMAGE, "-m", "pip", "list").stdout.lower()
    assert not {"debugpy", "pytest", "mypy"} & {line.split()[0] for line in installed.splitlines()}


def test_read_only_root_and_little_shared_memory(
    project: Project, shell: Shell, mounts: list[str], settings: dict[str, object]
) -> None:
    limits = ["--read-only", "--tmpfs", "/tmp", "--shm-size", "64m", "--network", "none"]
    said = run(shell, *limits, *mounts, settings=settings)
    assert "Traceback" not in said
    assert Job(shell.folder / "checkpoints" / "job", shell.folder / "runs" / "1").last_round == 2


@pytest.mark.parametrize(
    "options", [[], pytest.param(["--read-only", "--tmpfs", "/tmp"], marks=pytest.mark.nightly)]
)
def test_checkpoints_that_would_end_with_the_container_are_refused(
    project: Project,
    shell: Shell,
    mounts: list[str],
    settings: dict[str, object],
    options: list[str],
) -> None:
    volumes = [text for text in mounts if "/workspace/checkpoints" not in text]
    said = run(shell, *options, *volumes, settings=settings, expect=1)
    assert "Error: checkpoints_dir must outlive the container" in said
    assert "-v /a/folder:/workspace/checkpoints/job" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("missing", ["runs", pytest.param("cache", marks=pytest.mark.nightly)])
def test_a_missing_mount_under_a_read_only_root_is_named(
    project: Project, shell: Shell, settings: dict[str, object], mounts: list[str], missing: str
) -> None:
    volumes = [text for text in mounts if not text.endswith(f"/workspace/{missing}")]
    said = run(shell, "--read-only", "--tmpfs", "/tmp", *volumes, settings=settings, expect=1)
    assert "Traceback" not in said
    assert "read-only file system" in said.lower() or "file system is read-only" in said
    assert f"/workspace/{missing}" in said or f" {missing} " in said


def test_a_cpu_quota_is_what_the_workers_share(
    project: Project, shell: Shell, mounts: list[str], settings: dict[str, object]
) -> None:
    alone = settings | {"site_ids": [0]}
    del alone["num_threads"]
    said = run(shell, "--cpus", "1", *mounts, settings=alone)
    assert re.search(r"1 CPU workers?, 1 thread", said), said


def test_the_command_of_the_page_on_containers(project: Project, shell: Shell) -> None:
    text = (ROOT / "docs/containers.md").read_text()
    (command,) = re.findall(r"^\$ (docker run --rm --read-only .*?demo)$", text, re.M | re.S)
    command = command.replace("scaling-fl:train", TRAIN_IMAGE).replace("with demo", "print_config")
    home = shell.folder / "home"
    for folder in ("runs", "checkpoints", "home/.cache/scaling_fl"):
        (shell.folder / folder).mkdir(parents=True)
    shown = shell.type("bash", "-c", command, HOME=str(home)).end(expect=0)
    assert "site_ids" in shown.out
