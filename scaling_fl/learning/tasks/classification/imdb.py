"""IMDb: whether a film review is positive; a download, a folder or the tarball.

Source: Maas et al., Learning Word Vectors for Sentiment Analysis, ACL 2011.
"""

import hashlib
import io
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np

from scaling_fl.learning.cache import FetchError, cache_folder, cached_folder
from scaling_fl.learning.task import Split
from scaling_fl.learning.tasks.classification.folders import (
    decode,
    find_folder,
    list_files,
    read_folder,
)
from scaling_fl.learning.tasks.classification.sources import file_digest, folder_digest, reading
from scaling_fl.learning.text.labelled import DataError, Labelled, refuse_text_option

LABELS = ("neg", "pos")
ARCHIVE_MD5 = "7c2ac02c03563afcf9b574c7e56c153a"
_ARCHIVE = "aclImdb_v1.tar.gz"


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
    wanted = re.compile(rf"(?:.*/)?{split}/({'|'.join(LABELS)})/([^/]+\.txt)")
    found: list[tuple[int, str, str]] = []
    with reading(path), tarfile.open(path, "r|*") as archive:
        for member in archive:
            match = wanted.fullmatch(member.name)
            file = archive.extractfile(member) if match and member.isreg() else None
            if match and file:
                text = decode(f"{path}:{member.name}", file.read(), "utf-8")
                found.append((LABELS.index(match[1]), match[2], text))
    if not found:
        raise DataError(
            f"{path}: the archive must hold {split}/pos and {split}/neg, and does not; "
            f"name {_ARCHIVE}."
        )
    found.sort(key=lambda entry: entry[:2])
    labels = np.array([label for label, _, _ in found], dtype=np.int64)
    return Labelled([text for _, _, text in found], labels)


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

    silent = io.StringIO()
    try:
        with _safe_extraction(), redirect_stdout(silent), redirect_stderr(silent):
            extracted = Path(IMDB.download(str(staging)))
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
