"""IMDb: whether a film review is positive; a download, a folder or the tarball.

Source: Maas et al., Learning Word Vectors for Sentiment Analysis, ACL 2011.
"""

import hashlib
import io
import os
import platform
import re
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from scaling_fl.core.waiting import DOWNLOAD_SECONDS, bounded, told_when_slow
from scaling_fl.learning.cache import FetchError, cache_folder, cached_folder
from scaling_fl.learning.tables.kinds import HEAD_BYTES, Kind, kind_of
from scaling_fl.learning.tables.sources import (
    UNPACKERS,
    damaged,
    file_digest,
    folder_digest,
    reading,
)
from scaling_fl.learning.task import Split
from scaling_fl.learning.tasks.classification.folders import (
    decode,
    find_folder,
    list_files,
    read_folder,
)
from scaling_fl.learning.text.labelled import DataError, Labelled, refuse_text_option

LABELS = ("neg", "pos")
ARCHIVE_MD5 = "7c2ac02c03563afcf9b574c7e56c153a"
_ARCHIVE = "aclImdb_v1.tar.gz"
_REVIEW = re.compile(rf"(?P<label>{'|'.join(LABELS)})/(?P<file>[^/.][^/]*\.txt)")
_URLS = re.compile(rf"urls_(?P<label>{'|'.join(LABELS)})\.txt")
_END_BYTES = 2 * tarfile.BLOCKSIZE


def load(
    split: Split, path: str | None, *, text: str | None = None, cache_dir: Path | None = None
) -> Labelled:
    """Read one split out of ``aclImdb`` (or its parent), its tarball, or a download.

    Both splits may name the same folder or tarball.
    """
    refuse_text_option("imdb", text)
    path = path or str(_downloaded(cache_dir))
    if os.path.isfile(path):
        return _read_tarball(path, split)
    return read_folder(_folder(path, split), LABELS, encoding="utf-8")


def source_digest(split: Split, path: str | None, *, cache_dir: Path | None = None) -> str:
    path = path or str(_downloaded(cache_dir))
    if os.path.isfile(path):
        return file_digest(path)
    folder = _folder(path, split)
    return folder_digest(folder, list_files(folder, LABELS))


def _folder(path: str, split: Split) -> Path:
    return find_folder(path, [split, f"aclImdb/{split}", "."], LABELS)


def _read_tarball(path: str, split: Split) -> Labelled:
    """Read the texts straight out of the archive; nothing is ever extracted."""
    texts: dict[tuple[int, str], str] = {}
    listed: dict[str, int] = {}
    for name, content in _members(path, split):
        if review := _REVIEW.fullmatch(name):
            text = decode(f"{path}:{name}", content, "utf-8")
            texts[LABELS.index(review["label"]), review["file"]] = text  # as unpacking would do
        elif urls := _URLS.fullmatch(name):
            listed[urls["label"]] = len(content.splitlines())
    labels = np.array([label for label, _ in sorted(texts)], dtype=np.int64)
    for label, found in zip(LABELS, np.bincount(labels, minlength=len(LABELS)), strict=True):
        if not found:
            raise DataError(
                f"{path}: the archive must hold {split}/{label}, and does not; name a whole "
                f"{_ARCHIVE}."
            )
        if listed.get(label, found) != found:
            raise DataError(
                f"{path}: the archive must hold all {listed[label]} reviews that its {split}/"
                f"urls_{label}.txt lists, and holds {found}; name a whole {_ARCHIVE}, or unpack "
                "this one and name the folder to use what is there."
            )
    return Labelled([texts[key] for key in sorted(texts)], labels)


def _members(path: str, split: Split) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a split, named below its folder.

    Raises:
        DataError: the file is no tarball, or not a whole one.
    """
    with reading(path), open(path, "rb") as packed:
        kind = kind_of(packed.peek(HEAD_BYTES)[:HEAD_BYTES])
        with (
            UNPACKERS.get(kind, io.BufferedReader)(packed) as stream,
            _archive(path, stream, kind) as archive,
        ):
            for member in archive:
                _, is_below, name = f"/{member.name}".rpartition(f"/{split}/")
                file = archive.extractfile(member) if is_below and member.isreg() else None
                if file:
                    yield name, file.read()
            _check_end(path, stream, archive.offset)


def _archive(path: str, stream: Any, kind: Kind) -> tarfile.TarFile:
    stream.read(HEAD_BYTES)  # tarfile would hide that this cannot be unpacked
    stream.seek(0)
    try:
        return tarfile.open(fileobj=stream, mode="r:")
    except tarfile.ReadError:
        what = "a packed file of another kind" if kind in UNPACKERS else kind.name
        raise DataError(
            f"{path}: imdb reads {_ARCHIVE} or the folder aclImdb that it unpacks to, and this "
            f"file is {what}; name one of these."
        ) from None


def _check_end(path: str, stream: Any, offset: int) -> None:
    """Check that nothing is missing where tarfile saw the end; it takes half a header for one."""
    stream.seek(offset)
    if stream.read(_END_BYTES) != bytes(_END_BYTES):
        raise damaged(path)
    while stream.read(1 << 20):  # what unpacks it checks its sums at the very end
        pass


def _downloaded(cache_dir: Path | None) -> Path:
    """Return torchtext's download, of which only the archive is kept."""
    folder = cached_folder(
        cache_folder(cache_dir) / "imdb",
        is_whole=lambda folder: (folder / _ARCHIVE).is_file(),
        build=_download,
    )
    return folder / _ARCHIVE


def _download(staging: Path) -> None:
    from torchtext.datasets import IMDB

    if not hasattr(tarfile, "data_filter"):
        raise FetchError(
            "imdb is unpacked by Python 3.11.4 or newer alone, because an archive may reach out "
            f"of its folder in {platform.python_version()}; download {_ARCHIVE} yourself and give "
            "it as train_path and test_path, which unpacks nothing."
        )
    silent = io.StringIO()
    try:
        with (
            told_when_slow("imdb to be downloaded"),
            _safe_extraction(),
            redirect_stdout(silent),
            redirect_stderr(silent),
        ):
            extracted = Path(bounded(lambda: IMDB.download(str(staging)), seconds=DOWNLOAD_SECONDS))
        archive = extracted.parent / _ARCHIVE
        md5 = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
    except Exception as error:
        raise FetchError(
            f"imdb must be downloaded once, and torchtext could not ({type(error).__name__}); "
            f"connect to the network, or give train_path and test_path as the place of {_ARCHIVE}."
        ) from error
    if md5 != ARCHIVE_MD5:
        raise FetchError(
            f"the imdb archive must have md5 {ARCHIVE_MD5}, got {md5}; try again, or give "
            f"train_path and test_path as the place of a good {_ARCHIVE}."
        )
    os.replace(archive, staging / _ARCHIVE)
    # 100,000 small files that the archive holds as well.
    shutil.rmtree(extracted.parent)


@contextmanager
def _safe_extraction() -> Iterator[None]:
    """Let tarfile refuse members that would land outside the target, whoever calls it."""
    before = tarfile.TarFile.__dict__.get("extraction_filter")
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        if before is None:
            del tarfile.TarFile.extraction_filter
        else:
            tarfile.TarFile.extraction_filter = before
