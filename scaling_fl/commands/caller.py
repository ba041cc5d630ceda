"""What the caller types to start a script of this project, from where the caller stands."""

import os
import shlex
import sys
from pathlib import Path

from scaling_fl.commands.endings import ROOT


def script(name: str) -> str:
    """Return the command that starts ``scripts/<name>`` as this program was started."""
    path = ROOT / "scripts" / name
    if runner := os.environ.get("SCALING_FL_RUNNER"):  # by run-local.sh, which finds scripts
        typed = Path("scripts", name)
        # In a container, a script of the caller's folder is a copy of that which runs.
        is_outside = "SCALING_FL_CONTAINER" not in os.environ
        is_another = is_outside and typed.exists() and not typed.samefile(path)
        return f"{runner} {shlex.quote(_near(path) if is_another else str(typed))}"
    # Where that has set this environment up, it is what is typed.
    is_its = Path(sys.prefix) == ROOT / ".venv"
    program = _near(ROOT / "run-local.sh" if is_its else Path(sys.orig_argv[0]))
    if is_its and os.sep not in program:
        program = os.path.join(os.curdir, program)
    return f"{shlex.quote(program)} {shlex.quote(_near(path))}"


def _near(path: Path) -> str:
    """Write a path as short as it can be from here; the name of a command in PATH stays."""
    if os.sep not in str(path):
        return str(path)
    near, whole = os.path.relpath(path), os.path.abspath(path)
    near = near if os.sep in near else f".{os.sep}{near}"
    return min(near, whole, key=len)
