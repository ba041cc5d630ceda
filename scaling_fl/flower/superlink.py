"""Programs of Flower that go on in the background: start one, and wait until it answers."""

import http.client
import ssl
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from scaling_fl.core.errors import UserError
from scaling_fl.flower.control import Control, toml_text
from scaling_fl.flower.programs import MARK, program

HOST = "127.0.0.1"
START_SECONDS = 90.0
CONNECTION = "own"
_POLL_SECONDS = 0.2


def start_program(
    name: str, options: Sequence[str], environ: Mapping[str, str], *, folder: Path, log: Path
) -> "subprocess.Popen[bytes]":
    """Start a program in a session of its own, in ``folder``; what it prints goes to ``log``.

    The variables and the folder are those of the SuperLink's apps, too.
    """
    with log.open("ab") as out:
        return subprocess.Popen(
            [program(name), *options],
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def write_connection(home: Path, port: int, ca: Path | None = None) -> None:
    """Have the command flwr with this FLWR_HOME know the SuperLink; ``ca`` vouches for it."""
    home.mkdir(parents=True, exist_ok=True)
    trust = f"root-certificates = {toml_text(str(ca))}" if ca else "insecure = true"
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "{CONNECTION}"\n\n'
        f'[superlink.{CONNECTION}]\naddress = "{HOST}:{port}"\n{trust}\n',
        encoding="utf-8",
    )


def wait_for_health(
    process: "subprocess.Popen[bytes]", port: int, log: Path, ca: Path | None = None
) -> None:
    """Wait until a SuperLink answers.

    Raises:
        UserError: it has ended, or does not answer in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while not is_healthy(port, ca):
        if process.poll() is not None:
            raise UserError(f"the SuperLink did not start: {last_words(log)}")
        if time.monotonic() > deadline:
            raise UserError(f"the SuperLink did not answer in {START_SECONDS:.0f} s; see {log}")
        time.sleep(_POLL_SECONDS)


def is_healthy(port: int, ca: Path | None = None) -> bool:
    """Say whether a SuperLink answers; urllib would ask a proxy."""
    line: http.client.HTTPConnection
    if ca:
        line = http.client.HTTPSConnection(
            HOST, port, timeout=5, context=ssl.create_default_context(cafile=ca)
        )
    else:
        line = http.client.HTTPConnection(HOST, port, timeout=5)
    with suppress(OSError, http.client.HTTPException):
        line.request("GET", "/health")
        return line.getresponse().status == http.HTTPStatus.OK
    return False


def last_words(log: Path) -> str:
    """Return the last line of a log that says something."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    said = [line.strip() for line in lines if line.strip()]
    return said[-1].rstrip(".") if said else "it said nothing"


def control(environ: Mapping[str, str]) -> Control:
    """Return the SuperLink that ``write_connection`` has made known.

    Its commands are no part of what is marked: they run in the session of who types them.
    """
    return Control({k: v for k, v in environ.items() if k != MARK}, CONNECTION)
