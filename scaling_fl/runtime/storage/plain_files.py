"""Plain files are read; a pipe or a device, which may never end or never begin, is refused."""

import errno
import os
import stat
from pathlib import Path

from scaling_fl.runtime.storage.errors import NotAFile


def read_plain(path: Path) -> bytes:
    """Read a file.

    Raises:
        NotAFile: a folder, a pipe, a device, or a link without an end stands in its place.
        OSError: it cannot be read.
    """
    try:
        # A pipe is opened without waiting for its other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        raise _refusal(path) from None
    with os.fdopen(descriptor, "rb") as file:
        _check(path, os.fstat(descriptor).st_mode)
        return file.read()


def check_plain(path: Path) -> None:
    """Raise NotAFile or OSError, as ``read_plain`` would."""
    try:
        _check(path, os.stat(path).st_mode)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise _refusal(path) from None


def _check(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise _refusal(path)


def _refusal(path: Path) -> NotAFile:
    return NotAFile(
        f"{path} must be a file, and is a folder, a pipe, a device or a link that leads nowhere; "
        "put the file there, or remove what is there."
    )
