"""The process of a node that keeps a job's model in memory, as those see it that ask it.

A node of Flower runs every message in a new process, which would load the model anew. So the first
message starts a resident process (see ``answering``), and all messages are handed to it over a
socket in the node's folder.
"""

import os
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Client, Connection
from pathlib import Path

from scaling_fl.core.letters import Letter
from scaling_fl.core.places import Place

SOCKET, LOCK, LOG = "resident.sock", "resident.lock", "resident.log"
START_SECONDS = 180.0


def ask_resident(letter: Letter, place: Place) -> Letter:
    """Have the resident of a node answer a letter; start one where there is none.

    Raises:
        TimeoutError: it did not start.
        EOFError: it died meanwhile.
    """
    with _connected(place.folder) as connection:
        of_place = {name: value for name, value in asdict(place).items() if name != "folder"}
        connection.send_bytes(Letter({**letter.facts, "place": of_place}, letter.parts).to_bytes())
        return Letter.from_bytes(connection.recv_bytes())


def _connected(folder: Path) -> Connection:
    deadline, is_started = time.monotonic() + START_SECONDS, False
    while True:
        with suppress(OSError):
            return Client(str(folder / SOCKET), "AF_UNIX")
        if not is_started:
            _start(folder)
            is_started = True
        if time.monotonic() > deadline:
            raise TimeoutError(f"no resident in {folder}; see {folder / LOG}")
        time.sleep(0.05)


def _start(folder: Path) -> None:
    """Start a resident, which goes on when this process has ended."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # whoever may enter may ask the resident
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "scaling_fl.flower.answering", str(folder)],
            os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, *pair) for pair in ((nothing, 0), (log, 1), (log, 2))
            ],
            setsid=True,
        )
    finally:
        os.close(log)
        os.close(nothing)
