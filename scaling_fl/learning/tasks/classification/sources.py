"""Files on disks and in object stores: how they are read and told apart by their content."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scaling_fl.learning.task import Split
from scaling_fl.learning.text.labelled import DataError


def is_remote(path: str) -> bool:
    return "://" in path


def require_path(task: str, split: Split, path: str | None) -> str:
    """Return the path of a split that only the user can give."""
    if not path:
        raise DataError(f"{split}_path must name the {split} file of {task}, got none; give it.")
    return path


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn any error during the reading of ``path`` into one sentence that names the path."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: this file must exist, and does not; check the path.") from None
    except IsADirectoryError:
        raise DataError(
            f"{path}: this must be a file, and is a folder; name the file in it."
        ) from None
    except Exception as error:  # the libraries behind s3:// and gs:// raise classes of their own
        reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        raise DataError(
            f"{path}: this file must be readable, and is not ({type(error).__name__}: {reason}); "
            "check the path and your access to it."
        ) from error


@contextmanager
def open_text(path: str) -> Iterator[io.TextIOBase]:
    """Open a UTF-8 file (local, s3:// or gs://, also .gz), marking bytes that are not UTF-8.

    Such bytes arrive as lone surrogates, so that a reader can name the row and column of each.
    """
    import fsspec

    options: dict[str, Any] = {
        "mode": "rt",
        "encoding": "utf-8-sig",
        "errors": "surrogateescape",
        "newline": "",
        "compression": "infer",
    }
    with fsspec.open(path, **options) as file:
        yield file


def file_digest(path: str) -> str:
    """Identify a file's content: by the store's own checksum where it has one, else by sha256."""
    import fsspec

    with reading(path):
        if is_remote(path):
            filesystem, name = fsspec.url_to_fs(path, use_listings_cache=False)
            info = filesystem.info(name)
            if stored := info.get("ETag") or info.get("md5Hash"):
                return hashlib.sha256(f"{stored}/{info['size']}".encode()).hexdigest()
        with fsspec.open(path, "rb") as file:
            return _sha256(file)


def folder_digest(folder: Path, files: list[Path]) -> str:
    """Identify the content of files by their names inside a folder and their bytes."""
    total = hashlib.sha256()
    for file in files:
        with reading(str(file)):
            content = file.read_bytes()
        name = file.relative_to(folder).as_posix().encode()
        total.update(b"%d %b %d " % (len(name), name, len(content)))
        total.update(content)
    return total.hexdigest()


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
