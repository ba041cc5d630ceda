"""Files on disks and in object stores: how they are read and told apart by their content."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import ZipFile, ZipInfo

from scaling_fl.learning.task import Split
from scaling_fl.learning.tasks.classification.kinds import HEAD_BYTES, TEXT, kind_of
from scaling_fl.learning.text.labelled import DataError

COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".lzma": "lzma"}
"""By suffix: what ``open_bytes`` unpacks, beside .zip. A file that is cut short is an error in each
of them."""
_DATA = {".csv", ".tsv", ".tab", ".json", ".jsonl", ".ndjson", ".parquet", ".arrow"}
_BOM = "\ufeff".encode()


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
    except EOFError:
        raise cut_short(path) from None
    except Exception as error:  # the libraries behind s3:// and gs:// raise classes of their own
        reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        raise DataError(
            f"{path}: this file must be readable, and is not ({type(error).__name__}: {reason}); "
            "check the path and your access to it."
        ) from error


def cut_short(path: str) -> DataError:
    """Describe a file whose end is missing, of which no part is used."""
    return DataError(f"{path}: this file must be whole, and its end is missing; fetch it again.")


@contextmanager
def open_bytes(path: str) -> Iterator[io.BufferedReader]:
    """Open a file (local, s3:// or gs://) and unpack it as its name says (``COMPRESSED``, .zip).

    ``kind_of`` of what ``peek(HEAD_BYTES)`` shows tells what is in it.

    Raises:
        DataError: a zip archive does not hold exactly one file of data.
    """
    import fsspec

    suffix = PurePosixPath(path).suffix.lower()
    with fsspec.open(path, "rb", compression=COMPRESSED.get(suffix)) as file:
        if suffix == ".zip":
            with ZipFile(file) as archive, archive.open(_only_member(path, archive)) as member:
                yield _buffered(member)
        else:
            yield _buffered(file)


@contextmanager
def open_text(path: str) -> Iterator[io.TextIOBase]:
    """Open a table in UTF-8 as ``open_bytes`` does, marking bytes that are not UTF-8.

    Such bytes arrive as lone surrogates, so that a reader can name the row and column of each.

    Raises:
        DataError: the file is of another kind, such as UTF-16 or Parquet.
    """
    with open_bytes(path) as file:
        kind = kind_of(file.peek(HEAD_BYTES)[:HEAD_BYTES])
        if kind is not TEXT:
            raise DataError(
                f"{path}: this file must be a table in UTF-8, and is {kind.name}; {kind.remedy}."
            )
        while file.peek(len(_BOM)).startswith(_BOM):
            file.read(len(_BOM))
        yield io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")


def _only_member(path: str, archive: ZipFile) -> ZipInfo:
    """Return the file of an archive, or of several the only one whose name is that of data."""
    members = [member for member in archive.infolist() if not _is_litter(member)]
    data = [member for member in members if _is_data(member.filename)]
    for candidates in (members, data):
        if len(candidates) == 1:
            return candidates[0]
    shown = ", ".join([member.filename for member in members[:6]]) + ", ..." * (len(members) > 6)
    raise DataError(
        f"{path}: the archive must hold one file of data, got {shown or 'none'}; unpack it and "
        "name the file."
    )


def _is_litter(member: ZipInfo) -> bool:
    """Say whether a member is a folder, or what macOS and hidden files leave in archives."""
    parts = PurePosixPath(member.filename).parts
    return member.is_dir() or "__MACOSX" in parts or parts[-1].startswith(".")


def _is_data(name: str) -> bool:
    path = PurePosixPath(name.lower())
    return (path.with_suffix("") if path.suffix in COMPRESSED else path).suffix in _DATA


def _buffered(file: Any) -> io.BufferedReader:
    return io.BufferedReader(file, 1 << 18)


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
