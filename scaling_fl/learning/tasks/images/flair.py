"""FLAIR: photos of Flickr's users with any of 17 labels; each user is a client.

Source: Song, Granqvist and Talwar, arXiv 2207.08869. The folder has ``labels_and_metadata.json``,
a list of records with image_id, user_id, labels and partition (train, val or test), and the images
``small_images/<image_id>.jpg``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from scaling_fl.learning.images.decoding import read_image
from scaling_fl.learning.images.files import files_digest
from scaling_fl.learning.images.pictures import Pictures
from scaling_fl.learning.options import TaskOptions
from scaling_fl.learning.tables.json_records import json_records
from scaling_fl.learning.tables.sources import file_digest, require_path
from scaling_fl.learning.task import Split
from scaling_fl.learning.tasks.images.several import SeveralLabels, first_labels
from scaling_fl.learning.text.labelled import DataError

LABELS = (
    *("animal", "art", "celebration", "equipment", "fire", "food", "games", "interior_room"),
    *("light", "liquid", "material", "music", "outdoor", "plant", "recreation", "religion"),
    "structure",
)
"""In this order always: that of a set of texts, as FLASC has it, is another one in each process."""
_METADATA = "labels_and_metadata.json"
_FIELDS = ("image_id", "user_id", "labels", "partition")


@dataclass(frozen=True)
class FlairImages:
    """The gallery of a folder of FLAIR, with both splits."""

    options: TaskOptions

    @property
    def LABELS(self) -> tuple[str, ...]:
        return LABELS

    @cached_property
    def client_names(self) -> tuple[str, ...]:
        """The users of the training data, in the order of their names."""
        path = self._place("train", None)
        return tuple(sorted({str(each["user_id"]) for each in self._records(path, "train")}))

    def load(self, split: Split, path: str | None, *, cache_dir: Path | None = None) -> Pictures:
        path = self._place(split, path)
        records = self._records(path, split)
        files = [str(file) for file in _files(path, records)]
        number = {name: index for index, name in enumerate(LABELS)}
        marks = np.zeros((len(records), len(LABELS)), dtype=np.bool_)
        for row, record in enumerate(records):
            marks[row, [number[name] for name in record["labels"]]] = True
        client = {name: index for index, name in enumerate(self.client_names)}
        owners = [client.get(str(record["user_id"]), -1) for record in records]
        return Pictures(
            read=lambda index: read_image(files[index]),
            numbers=np.arange(len(records)),
            labels=first_labels(marks),
            marks=marks,
            owners=np.array(owners, dtype=np.int64),
        )

    def source_digest(
        self, split: Split, path: str | None, *, cache_dir: Path | None = None
    ) -> str:
        path = self._place(split, path)
        images = _files(path, self._records(path, split))
        of_images = files_digest(Path(path), images, cache_dir)
        return file_digest(f"{path}/{_METADATA}") + of_images

    def _place(self, split: Split, path: str | None) -> str:
        return require_path("flair", split, path or self.options.paths["train"])

    def _records(self, path: str, split: Split) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        for number, what, record in json_records(f"{path}/{_METADATA}"):
            _check(record, f"{path}/{_METADATA}, {what} {number}")
            if record["partition"] == split:
                found.append(record)
        return found


def _check(record: Mapping[str, Any], place: str) -> None:
    if lacking := [name for name in _FIELDS if record.get(name) in (None, "")]:
        raise DataError(
            f"{place}: a record must have {', '.join(_FIELDS)}, and lacks {', '.join(lacking)}; "
            "fetch the file again."
        )
    labels = record["labels"]
    if not isinstance(labels, list) or not set(map(str, labels)) <= set(LABELS):
        raise DataError(
            f"{place}: labels must be a list of those of FLAIR ({LABELS[0]}, ..., {LABELS[-1]}), "
            f"got {str(labels)[:80]}; correct it, or use task_name=images."
        )
    if Path(str(record["image_id"])).name != str(record["image_id"]):
        raise DataError(
            f"{place}: an image_id must be the name of a file, got {record['image_id']!r}."
        )


def _files(path: str, records: list[Mapping[str, Any]]) -> list[Path]:
    return [Path(path) / "small_images" / f"{record['image_id']}.jpg" for record in records]


def flair(options: TaskOptions) -> SeveralLabels:
    """Make the task of FLAIR, whose photos FLASC also turns upside down."""
    return SeveralLabels("flair", FlairImages(options), options, upside_down=True)
