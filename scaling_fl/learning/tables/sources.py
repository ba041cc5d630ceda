"""Files on disks and in object stores: how they are read and told apart by their content."""

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from gzip import BadGzipFile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile, ZipInfo

from scaling_fl.core.errors import UserError
from scaling_fl.core.object_stores import limit_object_store
from scaling_fl.core.waiting import told_when_slow
from scaling_fl.learning.tables.kinds import (
    BZIP2,
    GZIP,
    HEAD_BYTES,
    LZMA,
    TEXT,
    XZ,
    ZIP,
    ZSTD,
    Kind,
    kind_of,
)
from scaling_fl.learning.text.labelled import DataError

if TYPE_CHECKING:
    from scaling_fl.learning.task import Split


def _open_zst(file: Any) -> Any:
    import pyarrow  # takes a fourth of a second

    return pyarrow.CompressedInputStream(file, "zstd")


UNPACKERS: dict[Kind, Callable[[Any], Any]] = {
    GZIP: gzip.open,
    BZIP2: bz2.open,
    XZ: lzma.open,
    LZMA: lzma.open,
    ZSTD: _open_zst,
}
"""What unpacks a stream, and raises an error where it is cut short."""
PACKED = {".gz": GZIP, ".bz2": BZIP2, ".xz": XZ, ".lzma": LZMA, ".zst": ZSTD, ".zip": ZIP}
"""What a file must be by its suffix, if it is packed."""
_DAMAGES = (EOFError, BadZipFile, BadGzipFile, zlib.error, lzma.LZMAError, tarfile.ReadError)
_DATA = {".csv", ".tsv", ".tab", ".json", ".jsonl", ".ndjson", ".parquet", ".arrow"}
_BOM = "\ufeff".encode()


def is_remote(path: str) -> bool:
    return "://" in path


def require_path(task: str, split: "Split", path: str | None) -> str:
    """Return the path of a split that only the user can give."""
    if not path:
        raise DataError(f"{split}_path must name the {split} file of {task}, got none; give it.")
    return path


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn any error during the reading of ``path`` into one sentence that names the path.

    Raises:
        DataError: the file is not there, or its content is wrong.
        UserError: it cannot be read now, as when a network is away. A store is waited for in
            bounded time, and what takes longer is told.
    """
    try:
        if is_remote(path):
            limit_object_store(path)
            with told_when_slow(f"{path} to be read"):
                yield
        else:
            yield
    except UserError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: this file must exist, and does not; check the path.") from None
    except IsADirectoryError:
        raise DataError(
            f"{path}: this must be a file, and is a folder; name the file in it."
        ) from None
    except _DAMAGES as error:
        raise damaged(path) from error
    except Exception as error:  # the libraries behind s3:// and gs:// raise classes of their own
        reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        detail = f"{type(error).__name__}: {reason}".removesuffix(": ")
        # An error of the system has a number; another one is about what stands in the file.
        is_of_content = not is_remote(path) and getattr(error, "errno", None) is None
        raise (DataError if is_of_content else UserError)(
            f"{path}: this file must be readable, and is not ({detail}); check the path"
            f"{', the network' * is_remote(path)} and your access to it."
        ) from error


def damaged(path: str) -> DataError:
    """Describe a file of which no part is used, because its end or something else is missing."""
    return DataError(
        f"{path}: this file must be whole, and is cut short or damaged; fetch it again."
    )


@contextmanager
def open_bytes(path: str) -> Iterator[io.BufferedReader]:
    """Open a file (local, s3:// or gs://) and unpack it if its name says so (``PACKED``).

    ``kind_of`` of what ``peek(HEAD_BYTES)`` shows tells what is in it.

    Raises:
        DataError: it is not packed as its name says, or a zip archive does not hold exactly one
            file of data.
    """
    import fsspec

    with fsspec.open(path, "rb") as raw:
        file = _buffered(raw)
        packed = PACKED.get(PurePosixPath(path).suffix.lower())
        kind = kind_of(file.peek(HEAD_BYTES)[:HEAD_BYTES])
        if packed is None or not file.peek(1):
            yield file
        elif kind is not packed:
            raise DataError(
                f"{path}: this file must be {packed.name} by its name, and is {kind.name}; "
                "rename it."
            )
        elif packed is ZIP:
            with ZipFile(file) as archive, archive.open(_only_member(path, archive)) as member:
                yield _buffered(member)
        else:
            with UNPACKERS[packed](file) as unpacked:
                yield _buffered(unpacked)


@contextmanager
def open_text(path: str, *kinds: Kind) -> Iterator[io.TextIOBase]:
    """Open a table in UTF-8 as ``open_bytes`` does, marking bytes that are not UTF-8.

    Such bytes arrive as lone surrogates, so that a reader can name the row and column of each.

    Raises:
        DataError: the file is of none of the ``kinds`` (none given: ``TEXT``), but such as UTF-16.
    """
    with open_bytes(path) as file:
        kind = kind_of(file.peek(HEAD_BYTES)[:HEAD_BYTES])
        if kind not in (kinds or (TEXT,)):
            raise DataError(
                f"{path}: this file must be a table in UTF-8, and is {kind.name}; {kind.remedy}."
            )
        while file.peek(len(_BOM)).startswith(_BOM):
            file.read(len(_BOM))
        yield io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")


def unpacked_suffix(path: str) -> str:
    """Return the suffix of a name less that of its packing, in small letters: .csv of x.CSV.gz."""
    name = PurePosixPath(path.lower())
    return (name.with_suffix("") if name.suffix in PACKED else name).suffix


def refuse_file(path: str, rule: str) -> None:
    """Refuse a local file where a folder is read, saying what it is.

    Raises:
        DataError: with ``rule``, which says what is read.
    """
    if Path(path).is_file():
        with reading(path), open(path, "rb") as file:
            kind = kind_of(file.read(HEAD_BYTES))
        raise DataError(f"{path}: {rule}, and this file is {kind.name}; name one of these.")


def _only_member(path: str, archive: ZipFile) -> ZipInfo:
    """Return the file of an archive, or of several the only one whose name is that of data."""
    members = [member for member in archive.infolist() if not _is_litter(member)]
    data = [member for member in members if unpacked_suffix(member.filename) in _DATA]
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
