"""The programs of Flower, and an environment in which none of its surprises is on."""

import os
import socket
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from scaling_fl.core.errors import UserError

VERSION = "1.42"
"""The Flower whose commands are known here; the names of its options change between releases."""

MARK = "SCALING_FL_FLOWER"
"""The variable by which every process that belongs together is found."""

TYPED = "SCALING_FL_FLOWER_TYPED"
"""The variable that tells an app what its user typed, up to the word ``with``."""

_OFF = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray would hide the accelerators of all clients, and warns that it will not do so for ever.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_HERE = ("127.0.0.1", "localhost")


def check_installed(*, needs_ray: bool = False) -> None:
    """Refuse to go on without Flower.

    Raises:
        UserError: it is missing, is of another version, or lacks its simulation.
    """
    found = _version("flwr")
    if found is None:
        raise UserError(f"Flower must be installed and is not; type:\n  {_install()}")
    if not f"{found}.".startswith(f"{VERSION}."):
        raise UserError(f"Flower must be {VERSION}, got {found}; type:\n  {_install()}")
    if needs_ray and _version("ray") is None:
        raise UserError(f"Flower's simulation needs Ray, which is missing; type:\n  {_install()}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _install() -> str:
    return "pip install -c constraints.txt -e '.[flower]'"


def program(name: str) -> str:
    """Return the path of one of Flower's programs, which lies beside this Python."""
    return str(_programs() / name)


def _programs() -> Path:
    return Path(sys.executable).parent


def environment(home: Path, mark: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for Flower's programs: those of the caller, with Flower's own fixed.

    ``home`` is the folder in which Flower keeps its connections and the apps it was sent.
    """
    kept = {k: v for k, v in environ.items() if not k.startswith("FLWR_") and k != "RAY_ADDRESS"}
    # Flower starts its other programs by their names alone.
    path = os.pathsep.join([str(_programs()), *filter(None, [environ.get("PATH")])])
    fixed = {"FLWR_HOME": str(home), MARK: mark, "PATH": path}
    # A proxy of the house must not be asked for a port of this machine.
    for name in ("NO_PROXY", "no_proxy"):
        fixed[name] = ",".join([*filter(None, [environ.get(name)]), *_HERE])
    return kept | _OFF | fixed


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
