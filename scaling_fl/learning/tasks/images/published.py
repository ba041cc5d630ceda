"""CIFAR-10 and Fashion-MNIST, from their archives or as others have saved them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scaling_fl.learning.images.archives import (
    PixelArrays,
    arrays_of_numpy,
    cifar_of_bytes,
    cifar_of_python,
    idx_pair,
    is_archive,
    members,
    places,
)
from scaling_fl.learning.images.cells import reader_of
from scaling_fl.learning.images.decoding import read_image
from scaling_fl.learning.images.files import files_digest
from scaling_fl.learning.images.pictures import Pictures
from scaling_fl.learning.options import TaskOptions
from scaling_fl.learning.tables.records import Records, columns_of, read_records, table_digest
from scaling_fl.learning.tables.sources import file_digest, require_path
from scaling_fl.learning.task import Indices, Split
from scaling_fl.learning.tasks.classification.folders import find_folder, list_files
from scaling_fl.learning.tasks.classification.own_labels import label_numbers, names_in
from scaling_fl.learning.tasks.images.family import ImageClassification
from scaling_fl.learning.text.labelled import DataError

FASHION_MNIST_FOLDER = "/usr/share/datasets/fashion-mnist"
"""Where Debian's package dataset-fashion-mnist puts it."""
CIFAR10_LABELS = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
FASHION_MNIST_LABELS = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_IMAGE_COLUMNS, _LABEL_COLUMNS = ("image", "img"), ("label", "labels")
_TABLES = (".parquet", ".csv", ".tsv", ".json", ".jsonl")


class FileLayout(NamedTuple):
    """Files of a split, wherever they lie together, and what reads them."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    read: Callable[[Mapping[str, bytes], str], PixelArrays]

    def files(self, split: Split) -> tuple[str, ...]:
        return self.train if split == "train" else self.test


def _of_cifar(suffix: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    batches = tuple(f"data_batch_{number}{suffix}" for number in range(1, 6))
    return batches, (f"test_batch{suffix}",)


def _of_idx(suffix: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    kinds = (f"images-idx3-ubyte{suffix}", f"labels-idx1-ubyte{suffix}")
    return tuple(f"train-{kind}" for kind in kinds), tuple(f"t10k-{kind}" for kind in kinds)


_LAYOUTS = (
    FileLayout(*_of_cifar(".bin"), cifar_of_bytes),
    FileLayout(*_of_cifar(""), cifar_of_python),
    FileLayout(*_of_idx(".gz"), idx_pair),
    FileLayout(*_of_idx(""), idx_pair),
)


@dataclass(frozen=True)
class PublishedImages:
    """A gallery of one of the data sets that everybody has, in any of its usual forms.

    They are its archive, unpacked or not; an ``.npz`` file; a table whose cells are images, or the
    paths of some; and a folder for each label, inside of one for each split or not. One place may
    have both splits, and is then given once.
    """

    name: str
    LABELS: tuple[str, ...]
    options: TaskOptions
    default: str | None = None
    """The folder that is read when no path is given."""

    def load(self, split: Split, path: str | None, *, cache_dir: Path | None = None) -> Pictures:
        path = self._place(split, path)
        if path.lower().endswith(".npz"):
            return arrays_of_numpy(path, self._name_of(split)).pictures(path, len(self.LABELS))
        if path.lower().endswith(_TABLES):
            return self._from_table(path, split)
        found = members(path, [name for layout in _LAYOUTS for name in layout.files(split)])
        for layout in _LAYOUTS:
            wanted = layout.files(split)
            if all(name in found for name in wanted):
                arrays = layout.read({name: found[name] for name in wanted}, path)
                return arrays.pictures(path, len(self.LABELS))
        return self._from_folders(path, split)

    def source_digest(
        self, split: Split, path: str | None, *, cache_dir: Path | None = None
    ) -> str:
        path = self._place(split, path)
        if path.lower().endswith(_TABLES):
            return table_digest(path, split)
        root = Path(path)
        if not root.is_dir():
            return file_digest(path)
        found = places(root, [name for layout in _LAYOUTS for name in layout.files(split)])
        return files_digest(root, [*found.values()] or self._files(path, split), cache_dir)

    def _place(self, split: Split, path: str | None) -> str:
        given = path or self.options.paths["train"]
        if given is None and self.default is not None and not Path(self.default).is_dir():
            raise DataError(
                f"{self.default}: {self.name} is read from here unless train_path is given, and is "
                f"not here; install Debian's package dataset-{self.name.replace('_', '-')}, or set "
                "train_path to a folder with its files."
            )
        return require_path(self.name, split, given or self.default)

    def _is_shared(self) -> bool:
        """Say whether both splits are read from one place."""
        return self.options.paths["test"] in (None, self.options.paths["train"])

    def _name_of(self, split: Split) -> Split | None:
        """Return the name of a split where it must be that of a part of a place."""
        return split if self._is_shared() else None

    def _from_table(self, path: str, split: Split) -> Pictures:
        if self._is_shared():
            raise DataError(
                f"{path}: a table of {self.name} has one split, and test_path names no other one; "
                "give test_path."
            )
        columns = columns_of(path, split)
        image, label = (
            next((name for name in columns if name in usual), usual[0])
            for usual in (_IMAGE_COLUMNS, _LABEL_COLUMNS)
        )
        records = read_records(path, split, [image, label])
        return Pictures.of(reader_of(records, image), self._numbers(records, label))

    def _numbers(self, records: Records, column: str) -> Indices:
        """Read labels, which are numbers or names of this data set."""
        cells = records.cells[column]
        if all(isinstance(cell, int) and 0 <= cell < len(self.LABELS) for cell in cells):
            return np.array(cells, dtype=np.int64)
        names = names_in(records, column, "label")
        by_number = {str(number): name for number, name in enumerate(self.LABELS)}
        names = [by_number.get(name, name) for name in names]
        return label_numbers(records, names, self.LABELS, column)

    def _from_folders(self, path: str, split: Split) -> Pictures:
        files = self._files(path, split)
        index = {name: number for number, name in enumerate(self._folders)}
        labels = np.array([index[file.parent.name] for file in files], dtype=np.int64)
        return Pictures.of(lambda number: read_image(str(files[number])), labels)

    @property
    def _folders(self) -> list[str]:
        """Name the folders of the labels, whose names cannot have a slash."""
        return [name.replace("/", "-") for name in self.LABELS]

    def _files(self, path: str, split: Split) -> list[Path]:
        if is_archive(path):
            raise DataError(
                f"{path}: an archive of {self.name} must hold the files that were published, and "
                "does not; unpack it and name its folder."
            )
        candidates = [split] if self._is_shared() else [split, "."]
        return list_files(find_folder(path, candidates, self._folders), self._folders)


def cifar10(options: TaskOptions) -> ImageClassification:
    """Make the task of CIFAR-10."""
    gallery = PublishedImages("cifar10", CIFAR10_LABELS, options)
    return ImageClassification("cifar10", gallery, options)


def fashion_mnist(options: TaskOptions) -> ImageClassification:
    """Make the task of Fashion-MNIST."""
    folder = FASHION_MNIST_FOLDER
    gallery = PublishedImages("fashion_mnist", FASHION_MNIST_LABELS, options, folder)
    return ImageClassification("fashion_mnist", gallery, options)
