"""A start that is refused says why in one sentence, and leaves the job and its record alone."""

from pathlib import Path

import pytest

from tests.e2e.commands import Job, Shell, arguments, federation

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
FAST = {"site_ids": [0], "num_rounds": 2, "num_local_epochs": 1, "job_name": "job"}


def contents(folder: Path) -> dict[str, bytes]:
    """All that the job and its runs have in files."""
    places = [folder / "checkpoints", folder / "runs"]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for place in places
        for path in place.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def completed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a job of two rounds, which is complete."""
    shell = Shell(tmp_path_factory.mktemp("completed"))
    settings = federation(corpus, checkpoints_dir="checkpoints", **FAST)
    shell.train(*arguments(settings)).end(expect=0)
    assert shell.close() == []
    (shell.folder / "broken.csv").write_text("id,text,author\n1,raven,POE\n")
    return shell.folder


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        (
            {"adapter.kind": "lora"},
            2,
            "checkpoints/round-000002 cannot be continued: adapter.alpha was not set, is now 16.0;",
        ),
        ({"train_path": "broken.csv"}, 2, "broken.csv, row 2, column 'author': the label must"),
        pytest.param(
            {"num_threads": 2},
            2,
            "num_threads must stay 1, as in the rounds before, got 2; leave it",
            marks=pytest.mark.nightly,
        ),
        pytest.param({"model": "no/such-model"}, 1, "no/such-model", marks=pytest.mark.nightly),
    ],
)
def test_a_refused_start_changes_nothing(
    completed: Path, corpus: Path, changes: dict[str, object], code: int, reason: str
) -> None:
    shell = Shell(completed)
    before = contents(completed)
    settings = federation(corpus, checkpoints_dir="checkpoints", **FAST) | {"num_rounds": 4}
    command = shell.train(*arguments(settings | changes))
    command.end(expect=code)
    assert reason in command.error
    assert len(command.error) < 500
    assert "To resume" not in command.out
    assert contents(completed) == before
    assert Job(completed / "checkpoints", completed / "runs" / "1").status == "COMPLETED"
    assert shell.close() == []
