"""The clients of the platforms: ``kubectl``, ``gcloud`` and ``sbatch``."""

import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scaling_fl.core.errors import UserError
from scaling_fl.submission.manifests import write
from scaling_fl.submission.request import Request

NOT_FOUND = 127
ATTEMPTS = 10
PAUSE_SECONDS = 1.0
# Kubeflow Trainer refuses a job until it has noticed the new runtime of the job.
_RUNTIME_NOT_SEEN = "must be created before the TrainJob is created"


class ClientFailed(UserError):
    """A client is missing or failed; the output of the client was shown unchanged."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def submit(documents: list[dict[str, Any]], request: Request) -> None:
    """Submit a manifest to the platform.

    Raises:
        ClientFailed: the client is missing or failed; it has the exit code of the client.
    """
    if request.platform == "vertex":
        with tempfile.TemporaryDirectory(prefix="scaling_fl-") as folder:
            path = Path(folder) / "custom-job.yaml"
            path.write_text(write(documents))
            _run([*_vertex_command(request), "--config", str(path)])
        return
    for verb, document in _kubernetes_steps(documents):
        _run(["kubectl", verb, "--filename", "-"], text=write([document]))


def submit_script(text: str, root: Path) -> None:
    """Submit a batch script to Slurm, to be run in the folder ``root`` of every node.

    Raises:
        ClientFailed: as ``submit``.
    """
    _run(["sbatch", "--chdir", str(root)], text=text)


def _vertex_command(request: Request) -> list[str]:
    command = ["gcloud", "ai", "custom-jobs", "create", "--display-name", request.name]
    options = {"--project": request.project, "--region": request.region}
    return command + [text for name, value in options.items() if value for text in (name, value)]


def _kubernetes_steps(documents: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (verb of kubectl, document).

    A job is created and never applied: to apply an existing job would report "unchanged" and run
    nothing. A runtime may exist already, so it is applied.
    """
    for document in documents:
        yield ("apply" if document["kind"] == "TrainingRuntime" else "create"), document


def _run(command: list[str], *, text: str = "") -> None:
    try:
        code = _exit_code(command, text)
    except FileNotFoundError:
        raise ClientFailed(
            f"{command[0]} must be installed to submit, but it was not found on PATH; install it, "
            "or write the manifest with --dry-run and submit it elsewhere.",
            NOT_FOUND,
        ) from None
    if code:
        raise ClientFailed(f"{shlex.join(command)} ended with exit code {code}.", code)


def _exit_code(command: list[str], text: str) -> int:
    for attempt in range(1, ATTEMPTS + 1):
        done = subprocess.run(command, input=text, text=True, stderr=subprocess.PIPE, check=False)
        if _RUNTIME_NOT_SEEN not in done.stderr or attempt == ATTEMPTS:
            break
        time.sleep(PAUSE_SECONDS)
    sys.stderr.write(done.stderr)
    return done.returncode
