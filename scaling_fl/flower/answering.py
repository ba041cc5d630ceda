"""Answers letters with a job's model and data, which stay in memory from letter to letter.

``python -m scaling_fl.flower.answering FOLDER`` is the resident process of a node.
"""

import fcntl
import json
import os
import re
import socket
import sys
import time
import traceback
from contextlib import suppress
from functools import lru_cache, partial
from multiprocessing.connection import Connection
from pathlib import Path

from scaling_fl.composition.node import JobOnNode
from scaling_fl.core.errors import UserError
from scaling_fl.core.json_text import json_text
from scaling_fl.core.letters import Letter
from scaling_fl.core.places import Place
from scaling_fl.federation.neighbours import Refused
from scaling_fl.federation.node_end import Forgotten
from scaling_fl.flower.resident import LOCK, SOCKET
from scaling_fl.flower.secure_node import answer_secure, check_open
from scaling_fl.flower.signing import read_signers

IDLE_SECONDS = 900.0
"""After which a resident ends; the next message starts another one."""
_IS_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch
"""A job's uid names folders of the node, and the server says it."""
_OF_JOB = ("version", "job", "job_name", "settings", "num_clients", "num_threads")


def answer_here(letter: Letter, place: Place) -> Letter:
    """Answer a letter in this process, which keeps the last job that it was asked about.

    A failure is one of the words that the server knows: the text of an exception may tell of the
    data, and stays on the node.
    """
    try:
        if not _IS_PLAIN(str(letter.facts["job"])):
            return Letter({"failure": "refused"})
        about = json_text({name: letter.facts[name] for name in _OF_JOB})
        job = partial(_job, about, None if place.train_path is None else place)
        if "secure" in letter.facts:
            return answer_secure(
                letter, place.folder, lambda each: job().answer_apart(each, place.folder)
            )
        check_open(letter, place)
        answer = job().answer(letter, place.folder)
        if letter.facts["what"] == "describe":
            checks_keys = bool(read_signers(place.folder))
            answer = Letter({**answer.facts, "checks_keys": checks_keys})
        return answer
    except Forgotten:
        return Letter({"failure": "forgotten"})
    except Refused as error:
        print(f"refused: {error}", flush=True)
        return Letter({"failure": "unsafe"})
    except Exception as error:
        traceback.print_exc()
        return Letter({"failure": "refused" if isinstance(error, UserError) else "failed"})


@lru_cache(maxsize=1)
def _job(about: str, owned: Place | None) -> JobOnNode:
    return JobOnNode(json.loads(about), owned)


def main(folder: Path) -> None:
    """Answer letters, one after the other, until nobody has asked for a while.

    It also ends when another resident has taken its place, or its socket was removed.
    """
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # there is one
        lock.truncate(0)
        print(os.getpid(), file=lock, flush=True)
        path = folder / SOCKET
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen()
            listening.settimeout(1.0)
            _serve(listening, folder, path.stat().st_ino)


def _serve(listening: socket.socket, folder: Path, own: int) -> None:
    path, asked = folder / SOCKET, time.monotonic()
    while time.monotonic() - asked < IDLE_SECONDS:
        if not path.exists() or path.stat().st_ino != own:
            return
        with suppress(TimeoutError):
            accepted, _ = listening.accept()
            accepted.setblocking(True)
            with Connection(accepted.detach()) as connection, suppress(OSError, EOFError):
                _answer(connection, folder)
            asked = time.monotonic()
    path.unlink(missing_ok=True)


def _answer(connection: Connection, folder: Path) -> None:
    letter = Letter.from_bytes(connection.recv_bytes())
    place = Place(folder=folder, **letter.facts["place"])
    connection.send_bytes(answer_here(letter, place).to_bytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
