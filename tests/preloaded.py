"""One process that has imported what workers need, for all tests of a pytest process.

Workers are forked from it in a tenth of a second: real processes, with gloo, signals and files.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from scaling_fl.runtime.machines.start import LastingProcess, worker_environment

_kept: list[LastingProcess] = []


def lasting_process() -> LastingProcess:
    """Return the process, which starts at the first call; its workers have one thread each."""
    if not _kept:
        _kept.append(LastingProcess(worker_environment(1, os.environ)))
    return _kept[0]


@contextmanager
def ending_the_process() -> Iterator[None]:
    yield
    while _kept:
        _kept.pop().end()
