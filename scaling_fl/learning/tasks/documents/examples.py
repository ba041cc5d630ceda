"""Questions about pages as examples: tokens with boxes, and the pixels of the pages."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from scaling_fl.learning.cache import cache_folder, cached_folder
from scaling_fl.learning.images.decoding import Pixels, read_image
from scaling_fl.learning.images.files import files_digest
from scaling_fl.learning.images.pictures import Pictures
from scaling_fl.learning.images.stored import StoredImages, store
from scaling_fl.learning.tables.cells import cell_name
from scaling_fl.learning.tables.records import read_records
from scaling_fl.learning.task import Batch, Indices
from scaling_fl.learning.tasks.documents.encoding import PageEncoder, encode_questions
from scaling_fl.learning.tasks.documents.rows import Choice, read_images, read_questions
from scaling_fl.learning.tasks.documents.scoring import IGNORED
from scaling_fl.learning.text.arrays import arrays_are_whole, load_arrays, read_facts, save_arrays

_FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class DocumentExamples:
    """Questions as flat arrays, each with the offsets of its parts, and the pages they are about.

    ``boxes`` has four numbers for each token, ``answers`` the bytes that ``encoding.written``
    makes. Question i is in row ``rows[i]`` of ``table``, and its page is
    ``images.pixels[pages[i]]``. ``key`` identifies all that models see, ``source`` the questions.
    """

    token_ids: NDArray[np.int32]
    boxes: NDArray[np.int16]
    offsets: Indices
    label_ids: NDArray[np.int32]
    label_offsets: Indices
    answers: NDArray[np.uint8]
    answer_offsets: Indices
    rows: Indices
    pages: Indices
    images: StoredImages
    table: str
    pad_token_id: int
    max_seq_len: int
    num_cut: int
    key: str
    source: str
    owners: Indices | None = None
    groups: Indices | None = None

    @cached_property
    def lengths(self) -> Indices:
        return np.diff(self.offsets)

    @cached_property
    def strata(self) -> Indices:
        return np.zeros(len(self), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def names(self, column: str) -> list[str | None]:
        """Return what a column of the table, such as that of providers, has for each question.

        Raises:
            DataError: the table has no such column.
        """
        records = read_records(self.table, "train", [column])
        return [cell_name(records, int(row), column) for row in self.rows]

    def batch(self, indices: Indices) -> Batch:
        """Collate questions, padded on the right to the longest of them.

        The tensors are ``input_ids``, ``attention_mask`` (questions, tokens), ``boxes`` (questions,
        tokens, 4) and ``labels`` (questions, tokens of the answer; IGNORED behind the end), all
        int64; ``answers`` (questions, bytes) and ``pixels`` (questions, side, side, 3), both uint8.
        """
        ids, mask = _padded(self.token_ids, self.offsets, indices, self.pad_token_id)
        boxes, _ = _padded(self.boxes.reshape(-1, 4), self.offsets, indices, 0)
        labels, _ = _padded(self.label_ids, self.label_offsets, indices, IGNORED)
        answers, _ = _padded(self.answers, self.answer_offsets, indices, 0)
        arrays = {
            "input_ids": ids.astype(np.int64),
            "attention_mask": mask.astype(np.int64),
            "boxes": boxes.astype(np.int64),
            "labels": labels.astype(np.int64),
            "answers": answers,
            "pixels": self.images.pixels[self.pages[indices]],
        }
        return Batch({name: torch.from_numpy(array) for name, array in arrays.items()}, indices)


def _padded(
    values: NDArray[Any], offsets: Indices, indices: Indices, padding: int
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Put parts of an array into rows of equal length, and say what of these is no padding."""
    lengths = offsets[indices + 1] - offsets[indices]
    mask = np.arange(lengths.max()) < lengths[:, None]
    padded = np.full((*mask.shape, *values.shape[1:]), padding, dtype=values.dtype)
    places = [np.arange(offsets[index], offsets[index + 1]) for index in indices]
    padded[mask] = values[np.concatenate(places)]
    return padded, mask


def load_questions(
    path: str,
    choose: Callable[[], Choice],
    encoder: Callable[[], PageEncoder],
    *,
    folder: Path,
    side: int,
    content: Mapping[str, Any],
    depends_on: Mapping[str, Any],
    pad_token_id: int,
    max_seq_len: int,
    cache_dir: Path | None,
) -> DocumentExamples:
    """Return the examples of a table whose pages are in ``folder``, by the cache if it has them.

    ``content`` is all that ``choose`` depends on, ``depends_on`` what tokens depend on beside. A
    page is scaled to a square of ``side`` pixels, whatever its shape, as DiT sees pages.

    Raises:
        DataError: the table or an image is not as it should be.
    """
    source = _hashed(content)
    words = _hashed({**depends_on, "content": source, "max_seq_len": max_seq_len})

    def build(staging: Path) -> None:
        choice = choose()
        columns = encode_questions(read_questions(path, choice.rows), encoder())
        facts = {"num_cut": columns.pop("num_cut")}
        names = read_images(path, choice.rows)
        facts["images"] = sorted(set(names))
        numbers = {name: number for number, name in enumerate(facts["images"])}
        columns["pages"] = np.array([numbers[name] for name in names], dtype=np.int64)
        columns["rows"] = choice.rows
        for name in ("owners", "groups"):
            if (found := getattr(choice, name)) is not None:
                columns[name] = found
        save_arrays(staging, columns, facts)

    place = cache_folder(cache_dir) / "documents" / words[:32]
    cached_folder(place, is_whole=arrays_are_whole, build=build)
    facts = read_facts(place)
    images = _pages(folder, facts["images"], side, cache_dir)
    return DocumentExamples(
        **load_arrays(place),
        images=images,
        table=path,
        pad_token_id=pad_token_id,
        max_seq_len=max_seq_len,
        num_cut=facts["num_cut"],
        key=_hashed([words, images.key]),
        source=_hashed([source, images.source]),
    )


def _pages(folder: Path, names: list[str], side: int, cache_dir: Path | None) -> StoredImages:
    """Decode each page once, however many questions there are about it."""
    files = [folder / name for name in names]

    def load() -> Pictures:
        labels = np.zeros(len(files), dtype=np.int64)
        return Pictures.of(lambda number: _whole_page(files[number], side), labels)

    depends_on = {"pages": files_digest(folder, files, cache_dir), "side": str(side)}
    return store(load, depends_on=depends_on, largest_side=side, cache_dir=cache_dir)


def _whole_page(file: Path, side: int) -> Pixels:
    page = Image.fromarray(read_image(str(file)))
    return np.asarray(page.resize((side, side), Image.Resampling.BILINEAR))


def _hashed(content: Any) -> str:
    text = json.dumps([content, _FORMAT_VERSION], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
