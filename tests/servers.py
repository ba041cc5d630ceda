"""Local servers that stand for S3 and Google Cloud Storage, each a process of its own."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 30.0

# The kernel ends the server with the test process, however that one dies.
_TIED = """
import ctypes, importlib, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the test process is gone")
sys.argv = sys.argv[2:]
sys.exit(importlib.import_module(sys.argv[0]).main())
"""


@dataclass(frozen=True)
class Server:
    """A running server: where it listens and the variables that send clients to it."""

    port: int
    environment: dict[str, str]
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def free_port() -> int:
    """Find a port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def moto_server(log: Path | None = None) -> Iterator[Server]:
    """Run moto's S3 until the context ends; no bucket exists."""
    port = free_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test-key",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = ["moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _serving(command, port, log) as process:
        yield Server(port, environment, process)


@contextmanager
def gcs_emulator(log: Path | None = None) -> Iterator[Server]:
    """Run an emulator of Google Cloud Storage until the context ends; no bucket exists."""
    port = free_port()
    environment = {
        "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }
    command = [
        "gcp_storage_emulator.__main__",
        "start",
        "--host=127.0.0.1",
        f"--port={port}",
        "--in-memory",
    ]
    with _serving(command, port, log) as process:
        yield Server(port, environment, process)


@contextmanager
def _serving(command: list[str], port: int, log: Path | None) -> Iterator[subprocess.Popen[bytes]]:
    output = log.open("ab") if log else subprocess.DEVNULL
    process = subprocess.Popen(
        [sys.executable, "-c", _TIED, str(os.getpid()), *command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    try:
        _wait_for(process, port)
        yield process
    finally:
        process.kill()
        process.wait()
        if log:
            output.close()  # type: ignore[union-attr]


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode} at its start.")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"no server answers on port {port} after {START_SECONDS:g} s.")
