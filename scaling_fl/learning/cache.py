"""A cache of folders: one process makes each folder, and the folder appears whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from scaling_fl.core.errors import UserError

CACHE_VARIABLE = "SCALING_FL_CACHE"


class FetchError(UserError):
    """A file that is not on this machine could not be fetched."""


def cache_folder(cache_dir: Path | str | None = None) -> Path:
    """Choose the cache: the one given, else ``SCALING_FL_CACHE``, else one in the home folder."""
    chosen = cache_dir or os.environ.get(CACHE_VARIABLE) or "~/.cache/scaling_fl"
    return Path(chosen).expanduser()


def cached_folder(
    folder: Path, *, is_whole: Callable[[Path], bool], build: Callable[[Path], None]
) -> Path:
    """Return ``folder``, first building it when it is missing or no longer whole.

    ``build`` fills a staging folder, which is then renamed: a build that dies leaves nothing that
    looks like the result. Processes that need the same folder wait for the one that builds it.

    Raises:
        UserError: when the cache cannot be written.
    """
    if is_whole(folder):
        return folder
    from filelock import FileLock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not is_whole(folder):
                _build(folder, build)
    except OSError as error:
        raise UserError(
            f"the cache folder {folder.parent} must be writable, and is not "
            f"({error.strerror or error}); free space there or set {CACHE_VARIABLE} to another one."
        ) from error
    return folder


def _build(folder: Path, build: Callable[[Path], None]) -> None:
    prefix = f".{folder.name}."
    # The processes that made these folders are dead, because we hold the lock.
    for leftover in folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        content = staging / "content"
        content.mkdir()
        build(content)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(content, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
