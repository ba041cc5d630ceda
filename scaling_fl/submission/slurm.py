"""The batch script of ``deploy/``: fill in a request, and leave all other lines unchanged."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from scaling_fl.submission.manifests import FOLDER, ManifestError
from scaling_fl.submission.request import Request

FILE = "slurm-job.sh"
_OPTION = re.compile(r"#SBATCH --([a-z-]+)")


def read(root: Path) -> str:
    """Read the batch script.

    Raises:
        ManifestError: the file is missing, or has no line with an option of sbatch.
    """
    path = root / FOLDER / FILE
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path} must be a readable script, got: {error}.") from None
    if not _OPTION.search(text):
        raise ManifestError(
            f"{path} must have a line that begins with #SBATCH --, which the options follow, got "
            "none; restore it from the repository."
        )
    return text


def fill(text: str, request: Request) -> str:
    """Write the request's options and variables into the script, and the command as its ``$@``.

    One federation takes all nodes of one job. Workers of a queue need not wait for each other, so
    each is a task of an array, on a node of its own.
    """
    options = _options(request)
    kept = [line for line in text.splitlines() if _name(line) not in options]
    last = max((i for i, line in enumerate(kept) if _name(line)), default=0)
    added = [f"#SBATCH --{name}={value}" for name, value in options.items() if value]
    variables = [f"export {n}={shlex.quote(v)}" for n, v in request.variables.items()]
    command = f"set -- {shlex.join(request.arguments)}"
    lines = [*kept[: last + 1], *added, "", *variables, command, *kept[last + 1 :]]
    return "\n".join(lines) + "\n"


def _options(request: Request) -> Mapping[str, str]:
    """Return the options of sbatch that a request decides; those that are empty are left out."""
    return {
        "job-name": request.name,
        "nodes": "1" if request.serves_queue else str(request.nodes),
        "array": f"0-{request.nodes - 1}" if request.serves_queue else "",
        "gpus-per-node": str(request.gpus) if request.gpus else "",
    } | {
        name: value
        for name, value in (
            ("partition", request.partition),
            ("account", request.account),
            ("time", request.time_limit),
        )
        if value
    }


def _name(line: str) -> str | None:
    match = _OPTION.match(line)
    return match[1] if match else None
