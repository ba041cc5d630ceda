"""A storage: named files; a file appears when it is complete, and not before."""

import os
import re
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from scaling_fl.runtime.storage.errors import StorageError, explain
from scaling_fl.runtime.storage.processes import process_start

_PARTIAL = re.compile(r"\.scaling_fl-partial-(\d+)-(\d*)-\w+")


class Storage(ABC):
    """A flat set of named files; names use ``/``. All errors are ``StorageError``."""

    url: str
    """The address without credentials."""
    is_local: bool

    @abstractmethod
    def inside(self, folder: str) -> "Storage":
        """Return one of its folders as a storage, by the same connection."""

    @abstractmethod
    def names(self) -> list[str]:
        """List the complete files, sorted."""

    @abstractmethod
    def read_bytes(self, name: str) -> bytes:
        """Read a small file. Raises: NotStored."""

    @abstractmethod
    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a small file, completely or not at all."""

    @abstractmethod
    def fetch(self, name: str, local_path: Path) -> None:
        """Copy a file to a local path. Raises: NotStored."""

    @abstractmethod
    def local_copy(self, name: str) -> AbstractContextManager[Path]:
        """Return a local path of a file, which exists inside the context. Raises: NotStored."""

    @abstractmethod
    def put(self, local_path: Path, name: str) -> None:
        """Copy a local file into the storage, completely or not at all."""

    @abstractmethod
    def delete(self, names: Iterable[str]) -> None:
        """Delete files one after the other, in the order of ``names``; one may be missing."""

    @abstractmethod
    def staging_parent(self) -> Path:
        """Return the local folder in which files for this storage are prepared."""

    @abstractmethod
    def publish(self, staging: Path, folder: str, order: Sequence[str]) -> None:
        """Move the files of a staging folder to ``folder``, durably and in this order."""

    @abstractmethod
    def sweep(self, folders: re.Pattern[str]) -> None:
        """Remove the partial files of dead processes, and folders that are empty and match.

        Only the owner of the storage may call it.
        """

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Make a folder for files that are not complete yet; remove it at the end."""
        parent = self.staging_parent()
        folder = parent / partial_name()
        with explained(f"prepare files in {parent}"):
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn an error of the operating system into one sentence, which says what failed."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise explain(error, doing) from error


def partial_name() -> str:
    """Make a name for a partial file or folder; the name says which process writes it."""
    pid = os.getpid()
    return f".scaling_fl-partial-{pid}-{process_start(pid) or ''}-{secrets.token_hex(4)}"


def is_partial(relative: Path) -> bool:
    return any(_PARTIAL.fullmatch(name) for name in relative.parts)


def remove_if_abandoned(path: Path) -> None:
    """Remove a partial file or folder if the process that wrote it is dead."""
    match = _PARTIAL.fullmatch(path.name)
    if match is None or process_start(int(match[1])) == match[2]:
        return
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
