"""The desk: the process that Flower starts for a run hands letters between workers and the grid.

The run itself is the engine's command in a process of its own, with all that belongs to it: checks,
records, checkpoints, resuming. Its workers send their letters to a socket of this process.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from scaling_fl.core.letters import Letter
from scaling_fl.runtime.machines.office import ADDRESS, SECURE, send

if TYPE_CHECKING:
    from scaling_fl.composition.remote import Office


class RunFailed(Exception):
    """The run ended otherwise than at its end."""


def run_with(nodes: "Office", command: Sequence[str]) -> None:
    """Run a command whose workers reach the nodes by this process.

    Raises:
        RunFailed: the command ended with another exit code than 0.
    """
    with tempfile.TemporaryDirectory(prefix="scaling_fl-") as folder:
        path = Path(folder) / "office.sock"
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen()
            threading.Thread(target=_accept, args=(listening, nodes), daemon=True).start()
            # Flower has put the code of the run on the path.
            found = {ADDRESS: str(path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            found |= {SECURE: "1"} if nodes.is_secure else {}
            code = _run(command, os.environ | found)
    if code:
        raise RunFailed(f"the run ended with exit code {code}; its output says why")


def _run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout
        try:
            for line in process.stdout:
                print(line, end="", flush=True)  # Flower passes on what this process prints
            return process.wait()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)


def _accept(listening: socket.socket, nodes: "Office") -> None:
    with suppress(OSError):  # it is closed when the run has ended
        while True:
            accepted, _ = listening.accept()
            connection = Connection(accepted.detach())
            threading.Thread(target=_serve, args=(connection, nodes), daemon=True).start()


def _serve(connection: Connection, nodes: "Office") -> None:
    """Serve one worker until it is gone."""
    names = ("num_nodes", "owns_data", "owns_tests", "is_secure")
    facts = {name: getattr(nodes, name) for name in names}
    with connection, suppress(EOFError, OSError):
        send(connection, Letter(facts))
        while True:
            call = _receive(connection).facts
            answers: Iterable[tuple[int, Letter | str]]
            if call["call"] == "describe":
                answers = enumerate(nodes.describe(_receive(connection)))
            else:
                letters = dict(_addressed(connection) for _ in range(call["count"]))
                answers = nodes.exchange(letters, lambda: _check(connection))
            for key, answer in answers:
                why = answer if isinstance(answer, str) else ""
                send(connection, Letter({"from": key, "why": why}))
                if isinstance(answer, Letter):
                    send(connection, answer)


def _addressed(connection: Connection) -> tuple[int, Letter]:
    return int(_receive(connection).facts["to"]), _receive(connection)


def _receive(connection: Connection) -> Letter:
    return Letter.from_bytes(connection.recv_bytes())


def _check(connection: Connection) -> None:
    """Abandon a round whose worker is gone: it sends nothing while it waits for answers."""
    if connection.poll():
        raise EOFError


def training(words: Sequence[str]) -> list[str]:
    """Return the command that trains with what was typed after ``with``."""
    return [sys.executable, "-m", "scaling_fl.commands.training_over_nodes", "with", *words]
