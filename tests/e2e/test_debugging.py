"""Without a container, too, a worker waits for a debugger when it is asked to."""

import socket
from pathlib import Path

import pytest

from tests.debugger import debugger
from tests.e2e.commands import ROOT, Job, Shell, arguments, federation

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_a_worker_waits_stops_in_the_round_loop_and_goes_on(
    shell: Shell, corpus: Path, whole: Job
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = federation(corpus, job_name="job", checkpoints_dir="checkpoints")
    environ = {
        "SCALING_FL_DEBUG_WORKER": "1",
        "SCALING_FL_DEBUG_ADDRESS": f"127.0.0.1:{port}",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    command = shell.train(*arguments(settings), **environ)
    sign = f"worker 1 waits for a debugger on port {port}"
    with debugger(command, sign, port, str(ROOT)) as client:
        client.attach()
        assert client.value_of("number") == "1"
        command.end(expect=0)
    shell.seconds_until_empty()  # the debugger's own process ends a little later
    job = Job(shell.folder / "checkpoints", shell.folder / "runs" / "1")
    assert job.digest == whole.digest
