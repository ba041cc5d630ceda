"""The process that the workers of a machine are forked from: ``python -m scaling_fl.jobs.workers``.

``runtime.machines.start`` starts this process and asks it, on a socket that is its standard input,
for one worker after the other. This process has imported everything that a worker needs, and no
library has started a thread of its own pool yet, so a fork is a whole worker.
"""

import gc

gc.disable()  # The collector finds nothing during the imports, and takes a fifth of their time.

import json  # noqa: E402
import os  # noqa: E402
import socket  # noqa: E402
import traceback  # noqa: E402
from collections.abc import Mapping  # noqa: E402
from contextlib import suppress  # noqa: E402
from typing import Any  # noqa: E402

from scaling_fl.jobs.worker import main as work  # noqa: E402

_MAX_DESCRIPTORS = 64


def serve(control: socket.socket) -> None:
    """Fork a worker for each request, until the other end closes.

    A request is one byte with the worker's descriptors (standard input, output and error, and those
    to be kept open), and one line of JSON. The reply is one line: the process id.
    """
    requests = control.makefile("rb")
    control.sendall(b"ready\n")
    while True:
        begin, descriptors, _, _ = socket.recv_fds(control, 1, _MAX_DESCRIPTORS)
        if not begin:
            return
        request = json.loads(requests.readline())
        middle = os.fork()
        if middle == 0:
            _fork_orphan(request, descriptors, control)
        os.waitpid(middle, 0)  # Now the command has adopted the worker.
        control.sendall(b"\n")
        for descriptor in descriptors:
            os.close(descriptor)


def _fork_orphan(
    request: Mapping[str, Any], descriptors: list[int], control: socket.socket
) -> None:
    """Fork the worker, write its process id, and end, so that the worker has no parent here."""
    try:
        worker = os.fork()
        if worker == 0:
            _become_worker(request, descriptors)
        control.sendall(str(worker).encode())
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _become_worker(request: Mapping[str, Any], descriptors: list[int]) -> None:
    """Set this process up as ``Popen`` would, and do a worker's work, which ends the process."""
    os.setsid()
    for number, descriptor in enumerate(descriptors[:3]):
        os.dup2(descriptor, number)  # The first one replaces the socket.
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    work()


if __name__ == "__main__":
    gc.freeze()  # What is here stays, so no worker needs to look at it, or to copy its pages.
    gc.enable()
    with suppress(BrokenPipeError, ConnectionResetError), socket.socket(fileno=0) as parent:
        serve(parent)
