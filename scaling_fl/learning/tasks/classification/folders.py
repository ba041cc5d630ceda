"""Folders of texts: one folder per label, one file per text."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scaling_fl.learning.tables.sources import is_remote, reading
from scaling_fl.learning.text.labelled import DataError, Labelled


def find_folder(path: str, candidates: Sequence[str], labels: Sequence[str]) -> Path:
    """Return the first of some folders below ``path`` that has a folder for every label.

    Raises:
        DataError: when there is none.
    """
    if is_remote(path):
        raise DataError(f"{path}: the data must be on a local disk; copy it there.")
    for candidate in candidates:
        folder = Path(path) / candidate
        if all((folder / label).is_dir() for label in labels):
            return folder
    places = [candidate for candidate in candidates if candidate != "."]
    shown = labels if len(labels) <= 4 else [*labels[:3], "..."]
    raise DataError(
        f"{path}: there must be folders {', '.join(shown)} in {' or in '.join(places)}, and "
        "there are none; name the folder that the archive unpacks to."
    )


def list_files(folder: Path, labels: Sequence[str]) -> list[Path]:
    """List the files of all labels, label by label, in the order of their names."""
    return [
        file
        for label in labels
        for file in sorted((folder / label).iterdir())
        if file.is_file() and not file.name.startswith(".")
    ]


def read_folder(folder: Path, labels: Sequence[str], *, encoding: str) -> Labelled:
    """Read every file as one text; the name of its folder is its label.

    Raises:
        DataError: naming the file that is empty or badly encoded.
    """
    files = list_files(folder, labels)
    if not files:
        raise DataError(f"{folder}: the folders of the labels must hold files, got none; add some.")
    texts = [decode(str(file), _read(file), encoding) for file in files]
    index = {label: number for number, label in enumerate(labels)}
    numbers = np.array([index[file.parent.name] for file in files], dtype=np.int64)
    return Labelled(texts, numbers)


def decode(name: str, content: bytes, encoding: str) -> str:
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n") + 1
        column = error.start - (content.rfind(b"\n", 0, error.start) + 1) + 1
        raise DataError(
            f"{name}, row {row}, byte {column}: the file must be {encoding.upper()}, and is not; "
            "save it with that encoding."
        ) from None
    if not text.strip():
        raise DataError(f"{name}: the text must not be missing, got an empty file; remove it.")
    return text


def _read(file: Path) -> bytes:
    with reading(str(file)):
        return file.read_bytes()
