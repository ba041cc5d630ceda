"""A local folder as a storage: plain ``os`` calls, fsync and ``os.replace``."""

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from scaling_fl.runtime.storage.base import (
    Storage,
    explained,
    is_partial,
    partial_name,
    remove_if_abandoned,
)
from scaling_fl.runtime.storage.errors import NotStored, StorageError
from scaling_fl.runtime.storage.plain_files import check_plain, read_plain


class LocalStorage(Storage):
    """A folder, which is made when the first file is written."""

    is_local = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.url = str(self.folder)

    def inside(self, folder: str) -> "LocalStorage":
        return LocalStorage(self.folder / folder)

    def names(self) -> list[str]:
        with explained(f"list {self.url}"):
            paths = [path for path in _walk(self.folder) if not path.is_dir()]
            relative = [path.relative_to(self.folder) for path in paths]
        return sorted(path.as_posix() for path in relative if not is_partial(path))

    def read_bytes(self, name: str) -> bytes:
        with self._reading(name):
            return read_plain(self.folder / name)

    def write_bytes(self, name: str, data: bytes) -> None:
        self._replace(name, lambda partial: _write(partial, data))

    def fetch(self, name: str, local_path: Path) -> None:
        with self._reading(name):
            check_plain(self.folder / name)
            shutil.copyfile(self.folder / name, local_path)

    @contextmanager
    def local_copy(self, name: str) -> Iterator[Path]:
        with self._reading(name):
            check_plain(self.folder / name)
        yield self.folder / name

    def put(self, local_path: Path, name: str) -> None:
        self._replace(name, lambda partial: _copy(local_path, partial))

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            path = self.folder / name
            with explained(f"delete {name} in {self.url}"):
                path.unlink(missing_ok=True)
            self._remove_empty_parents(path)

    def _remove_empty_parents(self, path: Path) -> None:
        for parent in path.parents:
            if parent == self.folder:
                return
            try:
                parent.rmdir()
            except OSError:
                return

    def staging_parent(self) -> Path:
        return self.folder

    def publish(self, staging: Path, folder: str, order: Sequence[str]) -> None:
        target = self.folder / folder
        with explained(f"write {folder} to {self.url}"):
            target.mkdir(parents=True, exist_ok=True)
            for name in order:
                _fsync(staging / name)
            for name in order:
                if name == order[-1]:
                    # The last name must not appear before the others, even after a power cut.
                    _fsync(target)
                os.replace(staging / name, target / name)
            _fsync(target)
            _fsync(self.folder)

    def sweep(self, folders: re.Pattern[str]) -> None:
        with explained(f"remove unfinished files in {self.url}"):
            for path in list(_walk(self.folder)):
                remove_if_abandoned(path)
                if folders.fullmatch(path.name):
                    with suppress(OSError):  # rmdir removes a folder only if it is empty
                        path.rmdir()

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            with explained(f"read {name} in {self.url}"):
                yield
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise NotStored(f"{self.url} has no file {name}; check the path.") from None
            raise

    def _replace(self, name: str, fill: Callable[[Path], None]) -> None:
        target = self.folder / name
        partial = target.parent / partial_name()
        with explained(f"write {name} to {self.url}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                fill(partial)
                _fsync(partial)
                os.replace(partial, target)
            finally:
                partial.unlink(missing_ok=True)
            _fsync(target.parent)


def _walk(folder: Path) -> Iterator[Path]:
    """Yield all paths below a folder, each folder after its content; none if it does not exist."""
    for parent, folders, files in os.walk(folder, topdown=False, onerror=_refuse):
        for name in (*files, *folders):
            yield Path(parent) / name


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
