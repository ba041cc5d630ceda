"""Images, built once, and removed when the tests end; the layers stay as the build cache."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.engine import (
    BUILD_SECONDS,
    DEBUG_IMAGE,
    TRAIN_IMAGE,
    Project,
    docker,
    leftovers,
    remove_new,
)
from tests.e2e.commands import Job, Shell, arguments, federation, write_corpus


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The project with both images built, the way a first call builds them."""
    # A session that was killed may have left its images.
    docker("rmi", "--force", "--no-prune", TRAIN_IMAGE, DEBUG_IMAGE, check=False)
    before = leftovers()
    project = Project(tmp_path_factory.mktemp("project"))
    shell = Shell(tmp_path_factory.mktemp("first"))
    first = project.train(shell, "print_config")
    first.end(expect=0, patience_seconds=BUILD_SECONDS)
    assert f"building the image {TRAIN_IMAGE}, once" in first.err
    tools = project.type(shell, "pytest", "--version")
    tools.end(expect=0, patience_seconds=BUILD_SECONDS)
    yield project
    docker("rmi", "--force", "--no-prune", TRAIN_IMAGE, DEBUG_IMAGE)
    assert remove_new(before) == set()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A place to type commands in; neither process nor container may be left at the end."""
    before = leftovers()
    shell = Shell(tmp_path)
    yield shell
    processes, new = shell.close(), remove_new(before)
    assert (processes, new) == ([], set())


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The standard federation in one go, outside any container."""
    folder = tmp_path_factory.mktemp("whole")
    shell = Shell(folder)
    settings = federation(corpus, site_ids=[0], job_name="whole", checkpoints_dir="checkpoints")
    shell.train(*arguments(settings)).end(expect=0)
    assert shell.close() == []
    return Job(folder / "checkpoints", folder / "runs" / "1")
