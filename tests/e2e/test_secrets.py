"""A password in the environment is nowhere in what a run leaves or says."""

from pathlib import Path

import pytest

from tests.e2e.commands import Job, Shell, arguments, federation

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PASSWORD = "s3cretpw"


def test_a_database_that_is_down_costs_nothing_and_its_password_is_not_told(
    shell: Shell, corpus: Path
) -> None:
    uri = f"mongodb://user:{PASSWORD}@127.0.0.1:1/x"
    settings = federation(corpus, num_rounds=2, job_name="job", checkpoints_dir="checkpoints")
    command = shell.train(*arguments(settings), SACRED_MONGO_URI=uri).end(expect=0)
    assert Job(shell.folder / "checkpoints", shell.folder / "runs" / "1").status == "COMPLETED"
    assert PASSWORD not in command.out + command.err
    files = [path for path in shell.folder.rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        assert PASSWORD.encode() not in path.read_bytes(), path
