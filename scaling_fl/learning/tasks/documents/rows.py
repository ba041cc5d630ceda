"""Questions about pages in a Parquet file, as ``scripts/convert_docvqa.py`` writes it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scaling_fl.learning.tables.sources import reading
from scaling_fl.learning.text.labelled import DataError

if TYPE_CHECKING:
    import pyarrow.parquet

COLUMNS = ("question", "answers", "words", "boxes", "image")
_LARGEST, _LARGEST_SHARE, _OUTSIDE = 1000, 1.5, 20
_ROWS_AT_ONCE = 256
"""A page has hundreds of words; all pages of a split at once would not fit into memory."""


@dataclass(frozen=True, kw_only=True)
class PageQuestion:
    """A row: a question about a page, with the words on it and their boxes (words x 4)."""

    question: str
    answers: list[str]
    words: list[str]
    boxes: NDArray[np.int64]
    """In thousandths of the page."""


@dataclass(frozen=True)
class Choice:
    """The rows of a file that were chosen, of which random subsets are taken."""

    rows: NDArray[np.int64]
    owners: NDArray[np.int64] | None
    groups: NDArray[np.int64] | None = None

    @property
    def labels(self) -> NDArray[np.int64]:
        """Questions have none, so that all are alike."""
        return np.zeros(len(self), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: NDArray[np.int64]) -> "Choice":
        return Choice(
            self.rows[indices],
            None if self.owners is None else self.owners[indices],
            None if self.groups is None else self.groups[indices],
        )


def count_rows(path: str) -> int:
    """Count the questions in a file.

    Raises:
        DataError: it is no such file.
    """
    with reading(path):
        return int(_opened(path).metadata.num_rows)


def read_questions(path: str, rows: NDArray[np.int64]) -> Iterator[PageQuestion]:
    """Read the questions in some rows (rising), a part of the file at a time.

    Raises:
        DataError: a row is not as the file should be.
    """
    wanted = set(rows.tolist())
    first = 0
    with reading(path):
        columns = [name for name in COLUMNS if name != "image"]
        for batch in _opened(path).iter_batches(batch_size=_ROWS_AT_ONCE, columns=columns):
            here = [row for row in range(batch.num_rows) if first + row in wanted]
            for found, row in zip(batch.take(here).to_pylist(), here, strict=True):
                yield _question(found, f"{path}, row {first + row}")
            first += batch.num_rows


def read_images(path: str, rows: NDArray[np.int64]) -> list[str]:
    """Read the paths of the pages of some rows."""
    with reading(path):
        column = _opened(path).read(columns=["image"]).column("image")
        names = column.take(rows).to_pylist()
    if None in names:
        raise DataError(
            f"{path}, row {rows[names.index(None)]}: a question must name the image of its page, "
            "and does not; fill the column image."
        )
    return list(map(str, names))


def thousandths(boxes: NDArray[np.float64], place: str) -> NDArray[np.int64]:
    """Write boxes in thousandths of the page; those of numbers about 0 to 1 are shares of it.

    What text recognition puts a little outside of the page is put on its edge.

    Raises:
        DataError: a number is far from the page, or no number; it names ``place``.
    """
    if not len(boxes):
        return np.empty((0, 4), dtype=np.int64)
    scaled = boxes * (_LARGEST if boxes.max() <= _LARGEST_SHARE else 1)
    if not (scaled.min() >= -_OUTSIDE and scaled.max() <= _LARGEST + _OUTSIDE):
        raise DataError(
            f"{place}: boxes must be shares of the page (0 to 1) or thousandths of it, got "
            f"{boxes.min():g} to {boxes.max():g}; divide them by the size of the page."
        )
    return np.clip(scaled, 0, _LARGEST).astype(np.int64)


def _opened(path: str) -> "pyarrow.parquet.ParquetFile":
    import fsspec
    import pyarrow.parquet  # takes a fourth of a second

    file = pyarrow.parquet.ParquetFile(fsspec.open(path, "rb").open())
    present = file.schema_arrow.names
    if lacking := [name for name in COLUMNS if name not in present]:
        raise DataError(
            f"{path}: questions about pages must have the columns {', '.join(COLUMNS)}, and "
            f"{', '.join(lacking)} are missing; write the file by scripts/convert_docvqa.py."
        )
    return file


def _question(found: dict[str, Any], place: str) -> PageQuestion:
    question, answers, words = found["question"], found["answers"], found["words"]
    if not isinstance(question, str) or not _are_texts(answers) or not answers:
        raise DataError(f"{place}: a row must have a question and an answer; remove it.")
    boxes = np.array(found["boxes"] or np.empty((0, 4)), dtype=np.float64)
    if not _are_texts(words) or boxes.shape != (len(words), 4):
        raise DataError(
            f"{place}: every word must have a box of four numbers, got {len(words or [])} words "
            f"and boxes of the shape {boxes.shape}; correct or remove the row."
        )
    places = thousandths(boxes, place)
    return PageQuestion(question=question, answers=answers, words=words, boxes=places)


def _are_texts(cells: Sequence[Any] | None) -> bool:
    return cells is not None and all(isinstance(cell, str) for cell in cells)
