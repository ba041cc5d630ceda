"""A SuperLink of its own for one simulation, which leaves nothing behind however it ends.

Flower's local SuperLink would stay for ever, and run later jobs with the variables and in the
folder of the shell that happened to start it. This one is started in the caller's, and ended.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from scaling_fl.core.errors import UserError
from scaling_fl.flower.control import Control
from scaling_fl.flower.marked import end_marked
from scaling_fl.flower.programs import environment, free_port
from scaling_fl.flower.superlink import (
    HOST,
    control,
    start_program,
    wait_for_health,
    write_connection,
)

NODES = "scaling_fl"
"""The folder below FLWR_HOME in which simulated nodes remember."""

_LOCK = "lock"
_LONGEST = 27
"""Characters of a folder in whose folders the names of Ray's sockets still fit into 107."""


@dataclass(frozen=True)
class Simulation:
    """A SuperLink that simulates its nodes."""

    control: Control
    mark: str
    process: "subprocess.Popen[bytes]"

    def is_alive(self) -> bool:
        return self.process.poll() is None


@contextmanager
def simulation(environ: Mapping[str, str], memory: Path) -> Iterator[Simulation]:
    """Start a SuperLink with simulated nodes, and end it with all that it has started.

    What the nodes remember is kept in the folder ``memory``, for the run to go on with later.

    Raises:
        UserError: it does not start.
    """
    with _scratch() as folder:
        variables = environment(folder / "flwr", folder.name, environ)
        variables["RAY_TMPDIR"] = str(folder)
        _keep_memory(folder / "flwr", memory)
        port, log = free_port(), folder / "superlink.log"
        write_connection(folder / "flwr", port)
        options = ["--insecure", "--simulation", "--host", HOST, "--port", str(port)]
        process = start_program("flower-superlink", options, variables, folder=Path.cwd(), log=log)
        try:
            wait_for_health(process, port, log)
            yield Simulation(control(variables), folder.name, process)
        finally:
            end_marked(folder.name)
            process.kill()  # it is only without /proc that it may still live
            process.wait()


def _keep_memory(home: Path, memory: Path) -> None:
    """Have the nodes find ``memory`` in the place below FLWR_HOME where they remember."""
    home.mkdir()
    memory.mkdir(parents=True, exist_ok=True)
    (home / NODES).symlink_to(memory.resolve())


@contextmanager
def _scratch() -> Iterator[Path]:
    """Make a folder that is this process's while it lives; clear up after those that were killed.

    The kernel's lock on a file in it says whether its owner lives.
    """
    base = _base()
    with _lock(base / _LOCK):
        _sweep(base)
        folder = Path(tempfile.mkdtemp(dir=base, prefix=""))
        claim = _lock(folder / _LOCK)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        claim.close()


def _base() -> Path:
    base = Path(tempfile.gettempdir()) / f"flwr-{os.getuid()}"
    if len(str(base)) > _LONGEST:
        base = Path("/tmp") / base.name
    base.mkdir(mode=0o700, exist_ok=True)
    if base.is_symlink() or base.stat().st_uid != os.getuid():
        raise UserError(f"{base} must be a folder of yours; remove it, or set TMPDIR to another")
    return base


def _sweep(base: Path) -> None:
    """End what belongs to owners that have died."""
    for folder in base.iterdir():
        if folder.is_dir() and (claim := _try_lock(folder / _LOCK)):
            end_marked(folder.name)
            shutil.rmtree(folder, ignore_errors=True)
            claim.close()


def _lock(path: Path) -> IO[str]:
    file = path.open("a")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _try_lock(path: Path) -> IO[str] | None:
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
