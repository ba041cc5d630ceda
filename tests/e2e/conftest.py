"""Fixtures of tests that type commands."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.commands import Job, Shell, arguments, federation, write_corpus


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A place to type commands in; nothing that was started there may be left at the end."""
    shell = Shell(tmp_path)
    yield shell
    assert shell.close() == []


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the runs of one session share: texts and the cache of tokenised text."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The standard federation in one go; disturbed runs must come to the same."""
    folder = tmp_path_factory.mktemp("whole")
    shell = Shell(folder)
    settings = federation(corpus, site_ids=[0], job_name="whole", checkpoints_dir="checkpoints")
    shell.train(*arguments(settings)).end(expect=0)
    assert shell.close() == []
    return Job(folder / "checkpoints", folder / "runs" / "1")
