"""Commands whose variables refer to Secret Manager: the value is used, and told to nobody."""

import sys
from collections.abc import Iterator

import pytest

from tests.e2e.commands import ROOT, Shell
from tests.secret_server import Server, secret_server

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

REFERENCE = "sm://projects/p/secrets/mongo/versions/latest"
TRAIN = ("with", "demo", "checkpoints_dir=checkpoints", "site_ids=[]")


@pytest.fixture
def server() -> Iterator[Server]:
    with secret_server() as found:
        yield found


def variables(server: Server, reference: str) -> dict[str, str]:
    return {"SECRET_MANAGER_ENDPOINT": server.endpoint, "SACRED_MONGO_URI": reference}


def test_the_database_is_the_one_that_the_secret_names(shell: Shell, server: Server) -> None:
    server.keep(REFERENCE, b"mongodb://user:s3cretpw@127.0.0.1:1/mine")
    (shell.folder / "runs").mkdir()
    script = str(ROOT / "scripts" / "sync_runs.py")
    command = shell.type(sys.executable, script, **variables(server, REFERENCE)).end(expect=1)
    assert "127.0.0.1:1/mine" in command.err
    assert "s3cretpw" not in command.out + command.err


def test_a_training_reads_its_secrets_before_anything_else(shell: Shell, server: Server) -> None:
    server.keep(REFERENCE, b"mongodb://user:s3cretpw@127.0.0.1:1/mine")
    # No site: what the command is refused for once it has its secrets.
    command = shell.train(*TRAIN, **variables(server, REFERENCE)).end(expect=2)
    assert "site_ids must be non-empty" in command.err
    assert len(server.asked) == 1
    assert "s3cretpw" not in command.out + command.err


def test_a_secret_that_cannot_be_read_refuses_the_start(shell: Shell, server: Server) -> None:
    command = shell.train(*TRAIN, **variables(server, "sm://mongo")).end(expect=1)
    assert command.error.startswith("SACRED_MONGO_URI must be sm://projects/PROJECT/secrets/NAME/")
    script = str(ROOT / "scripts" / "sync_runs.py")
    command = shell.type(sys.executable, script, **variables(server, REFERENCE)).end(expect=1)
    assert command.error.startswith(
        "SACRED_MONGO_URI refers to projects/p/secrets/mongo/versions/latest, but "
    )
    assert command.err.count("\n") == 1
