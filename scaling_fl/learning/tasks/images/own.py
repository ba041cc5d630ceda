"""Images of one's own: a folder for each label, or a table of images, labels and clients."""

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_fl.learning.images.cells import paths_in, reader_of
from scaling_fl.learning.images.decoding import read_image
from scaling_fl.learning.images.files import files_digest
from scaling_fl.learning.images.pictures import Pictures
from scaling_fl.learning.options import TaskOptions
from scaling_fl.learning.tables.cells import cell_name, group_numbers, sorted_names
from scaling_fl.learning.tables.records import Records, columns_of, read_records, table_digest
from scaling_fl.learning.tables.sources import refuse_file, require_path
from scaling_fl.learning.task import Indices, Split
from scaling_fl.learning.tasks.classification.folders import list_files
from scaling_fl.learning.tasks.classification.own_labels import (
    check_labels,
    label_numbers,
    names_in,
    needed,
)
from scaling_fl.learning.tasks.held_out import mask_of_test, trained_by
from scaling_fl.learning.tasks.images.family import ImageClassification
from scaling_fl.learning.tasks.images.several import SeveralLabels, first_labels
from scaling_fl.learning.tasks.images.several_scoring import MOST_LABELS
from scaling_fl.learning.text.labelled import DataError

_FOLDER_OR_TABLE = (
    "images are read from a folder with a folder for each label, or from a table with data.image"
)
_BETWEEN_LABELS = re.compile(r"[,;|]")


@dataclass(frozen=True)
class OwnImages:
    """A gallery whose labels, and clients, are found in the training data."""

    options: TaskOptions

    @cached_property
    def LABELS(self) -> tuple[str, ...]:
        return self.options.labels or (
            self._found_in_table() if self.is_table else self._found_in_folder()
        )

    @cached_property
    def client_names(self) -> tuple[str, ...]:
        column = self.options.columns.client
        if column is None:
            return ()
        records = read_records(self._place("train")[0], "train", [column])
        return tuple(trained_by(self.options, sorted_names(names_in(records, column, "client"))))

    @property
    def is_table(self) -> bool:
        return self.options.columns.image is not None

    def load(self, split: Split, path: str | None, *, cache_dir: Path | None = None) -> Pictures:
        path, source = self._place(split)
        found = self._from_table(path, source) if self.is_table else self._from_folder(path)
        if self.options.test_share is None:
            return found
        mask = mask_of_test(self.options, found)
        return found.take(np.flatnonzero(mask if split == "test" else ~mask))

    def source_digest(
        self, split: Split, path: str | None, *, cache_dir: Path | None = None
    ) -> str:
        path, source = self._place(split)
        share, columns = self.options.test_share, self.options.columns
        content = [
            self._digest(path, source, cache_dir),
            [columns.image, columns.label, columns.client, self.options.images.several_labels],
            self.LABELS,
            self.client_names,
            share and [share, self.options.data_seed],
            *([columns.group] if columns.group else []),
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def _place(self, split: Split) -> tuple[str, Split]:
        """Return where a split is read from, and the split that this place is of."""
        source: Split = "train" if self.options.test_share is not None else split
        return require_path("images", source, self.options.paths[source]), source

    def _digest(self, path: str, source: Split, cache_dir: Path | None) -> str:
        if not self.is_table:
            return files_digest(Path(path), self._files(path), cache_dir)
        column = str(self.options.columns.image)
        files = paths_in(read_records(path, source, [column]), column)
        of_files = files_digest(Path(path).parent, files, cache_dir) if files else ""
        return table_digest(path, source) + of_files

    # A folder for each label

    def _found_in_folder(self) -> tuple[str, ...]:
        path, _ = self._place("train")
        refuse_file(path, _FOLDER_OR_TABLE)
        names = [f.name for f in Path(path).iterdir() if f.is_dir() and not f.name.startswith(".")]
        if len(names) < 2:
            raise DataError(
                f"{path}: there must be a folder of images for each label, of two or more, got "
                f"{', '.join(names) or 'none'}; name the folder that they are in."
            )
        return tuple(sorted_names(names))

    def _files(self, path: str) -> list[Path]:
        present = [name for name in self.LABELS if (Path(path) / name).is_dir()]
        return list_files(Path(path), present)

    def _from_folder(self, path: str) -> Pictures:
        files = self._files(path)
        index = {name: number for number, name in enumerate(self.LABELS)}
        labels = np.array([index[file.parent.name] for file in files], dtype=np.int64)
        return Pictures.of(lambda number: read_image(str(files[number])), labels)

    # A table

    def _found_in_table(self) -> tuple[str, ...]:
        column = str(needed("label", self.options.columns.label))
        path, _ = self._place("train")
        records = read_records(path, "train", [column])
        if self.options.images.several_labels:
            return _few(sorted_names(chain.from_iterable(_several(records, column))), records)
        found = sorted_names(names_in(records, column, "label"))
        check_labels(records, column, found)
        return tuple(records.classes.get(column) or found)

    def _from_table(self, path: str, source: Split) -> Pictures:
        columns = self.options.columns
        image, label = str(columns.image), str(needed("label", columns.label))
        has_clients = columns.client is not None and (
            source == "train" or columns.client in columns_of(path, source)
        )
        group = columns.group if source == "train" else None
        extra = [*[str(columns.client)] * has_clients, *([group] if group else [])]
        records = read_records(path, source, [image, label, *extra])
        marks = None
        if self.options.images.several_labels:
            marks = _marks(records, label, self.LABELS)
            labels = first_labels(marks)
        else:
            labels = label_numbers(records, names_in(records, label, "label"), self.LABELS, label)
        return Pictures(
            read=reader_of(records, image),
            numbers=np.arange(len(records)),
            labels=labels,
            marks=marks,
            owners=self._owners(records, source) if has_clients else None,
            groups=group_numbers(records, group) if group else None,
        )

    def _owners(self, records: Records, source: Split) -> Indices:
        index = {name: number for number, name in enumerate(self.client_names)}
        names = names_in(records, self.options.columns.client, "client", gaps=source == "test")
        return np.array([index.get(name, -1) for name in names], dtype=np.int64)


def _several(records: Records, column: str) -> list[list[str]]:
    """Read cells of several labels: lists, or texts with commas, semicolons or bars between."""
    found = []
    for row, cell in enumerate(records.cells[column]):
        names = [str(item) for item in cell] if isinstance(cell, list | tuple) else None
        if names is None:
            names = _BETWEEN_LABELS.split(cell_name(records, row, column) or "")
        found.append([name.strip() for name in names if name.strip()])
    return found


def _few(labels: list[str], records: Records) -> tuple[str, ...]:
    if 2 <= len(labels) <= MOST_LABELS:
        return tuple(labels)
    raise DataError(
        f"{records.path}: images with several labels each must have from 2 to {MOST_LABELS} "
        f"different ones, got {len(labels)}; name another column by data.label."
    )


def _marks(records: Records, column: str, labels: tuple[str, ...]) -> NDArray[np.bool_]:
    several = _several(records, column)
    rows = np.repeat(np.arange(len(several)), [len(names) for names in several])
    flat = [name for names in several for name in names]
    places: Any = _places(records, rows, flat)
    marks = np.zeros((len(several), len(labels)), dtype=np.bool_)
    marks[rows, label_numbers(places, flat, labels, column)] = True
    return marks


def _places(records: Records, rows: Indices, flat: list[str]) -> Records:
    """Number single labels by the rows that they stand in."""
    return Records(records.path, records.word, [records.rows[row] for row in rows], {"": flat})


def own_images(options: TaskOptions) -> ImageClassification:
    """Make the task of one's own images."""
    kind = SeveralLabels if options.images.several_labels else ImageClassification
    return kind("images", OwnImages(options), options)
