"""A stranger's table, in any of the usual formats: its columns, and its rows with their numbers.

The format follows from the end of the name (``.csv``, ``.tsv``, ``.json``, ``.jsonl``,
``.parquet``; then ``.gz``, ``.bz2``, ``.xz``, ``.zst`` or ``.zip``); a folder is a data set of
Hugging Face's datasets, as ``save_to_disk`` writes it. Nothing here imports torch: the columns are
checked before anything heavy loads.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from scaling_fl.learning.tables.delimited import Row, read_rows
from scaling_fl.learning.tables.hugging_face import (
    dataset_columns,
    dataset_digest,
    is_dataset,
    names_of_classes,
    read_dataset,
)
from scaling_fl.learning.tables.json_records import json_records
from scaling_fl.learning.tables.kinds import HEAD_BYTES, PARQUET, kind_of
from scaling_fl.learning.tables.sources import (
    PACKED,
    file_digest,
    open_bytes,
    open_text,
    reading,
)
from scaling_fl.learning.text.labelled import DataError

if TYPE_CHECKING:
    from scaling_fl.learning.task import Split


_DELIMITERS = (",", ";", "\t", "|")
_HEAD_CHARACTERS = 1 << 20
_FIRST_RECORDS = 1000
"""Records that are looked at for the names of columns, because a record may leave some out."""


@dataclass(frozen=True)
class Records:
    """The rows of a table: ``cells[column][i]`` is in row ``rows[i]`` of what a person sees.

    ``word`` says what such a number counts: rows of the file, the header included, or records. A
    cell is a text, a number, a truth value, None, or something that is no cell.
    """

    path: str
    word: str
    rows: Sequence[int]
    cells: Mapping[str, Sequence[Any]]
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The names of columns whose numbers stand for names."""

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, index: int, column: str) -> str:
        """Name a cell as a person finds it."""
        return f"{self.path}, {self.word} {self.rows[index]}, column {column!r}"


def columns_of(path: str, split: "Split") -> list[str]:
    """Return the names of a table's columns, reading as little as that takes.

    Raises:
        DataError: it cannot be read, or is no table.
    """
    return _way_to_read(path).columns(path, split)


def read_records(path: str, split: "Split", columns: Sequence[str]) -> Records:
    """Read some columns of a table.

    Raises:
        DataError: it cannot be read, is no table, or lacks a column.
    """
    return _way_to_read(path).read(path, split, list(columns))


def table_digest(path: str, split: "Split") -> str:
    """Identify the content of a table, without parsing it."""
    if _way_to_read(path) is _DATASET:
        return dataset_digest(path, split)
    return file_digest(path)


@dataclass(frozen=True)
class _WayToRead:
    columns: Callable[[str, "Split"], list[str]]
    read: Callable[[str, "Split", list[str]], Records]


def _way_to_read(path: str) -> _WayToRead:
    ends = [end.lower() for end in PurePosixPath(path.rstrip("/")).suffixes]
    if ends and ends[-1] in PACKED:
        ends.pop()
    if ends and ends[-1] in _READERS:
        return _READERS[ends[-1]]
    if is_dataset(path):
        return _DATASET
    raise DataError(
        f"{path}: a table must be a file whose name ends in {', '.join(_READERS)} (and then, if it "
        f"is compressed, in {', '.join(PACKED)}) or a folder that save_to_disk of datasets "
        "wrote; rename the file, or check the path."
    )


# Text with one row a line


def _header(path: str, delimiters: Sequence[str], needed: Sequence[str]) -> tuple[list[str], str]:
    """Return the names in the first row, and what is between them.

    Of several delimiters it is the first with which the row names all that is needed; without such
    a one, that with which it names most.
    """
    with reading(path), open_text(path) as file:
        head = file.read(_HEAD_CHARACTERS)
    found = []
    for delimiter in delimiters:
        reader = csv.reader(io.StringIO(head, newline=""), delimiter=delimiter, strict=True)
        try:
            first = next(row for row in reader if row)
        except (csv.Error, StopIteration):
            continue  # a name in quotation marks, with another delimiter after it
        names = [cell.strip() for cell in first]
        if needed and all(name in names for name in needed):
            return names, delimiter
        found.append((names, delimiter))
    if not found:
        raise _why_there_is_no_header(path, delimiters[0])
    return max(found, key=lambda each: len(each[0]))


def _why_there_is_no_header(path: str, delimiter: str) -> DataError:
    try:
        _ = list(islice(read_rows(path, delimiter=delimiter), 1))
    except DataError as error:
        return error
    return DataError(f"{path}: the file must have rows, and is empty; check the path.")


def _delimited(*delimiters: str) -> _WayToRead:
    def columns(path: str, split: "Split") -> list[str]:
        return _header(path, delimiters, [])[0]

    def read(path: str, split: "Split", names: list[str]) -> Records:
        header, delimiter = _header(path, delimiters, names)
        _check_columns(path, header, names)
        places = [header.index(name) for name in names]
        rows: list[int] = []
        cells: list[list[str]] = [[] for _ in names]
        body = read_rows(path, delimiter=delimiter)
        next(body)
        for row in body:
            _check_width(path, row, len(header))
            rows.append(row.number)
            for column, place in zip(cells, places, strict=True):
                column.append(row.cells[place])
        return Records(path, "row", rows, dict(zip(names, cells, strict=True)))

    return _WayToRead(columns, read)


def _check_width(path: str, row: Row, width: int) -> None:
    if len(row.cells) != width:
        raise DataError(
            f"{path}, row {row.number}: the row must have {width} columns, as the first row has, "
            f"got {len(row.cells)}; correct the row (a text with commas needs quotation marks)."
        )


def _check_columns(path: str, columns: Sequence[str], needed: Sequence[str]) -> None:
    shown = ", ".join(columns) if len(", ".join(columns)) <= 200 else f"{len(columns)} others"
    for name in needed:
        if name not in columns:
            raise DataError(
                f"{path}: the table must have the column {name!r}, and has {shown}; name a column "
                "that it has (of a text file the first row must name the columns)."
            )
        if list(columns).count(name) > 1:
            raise DataError(
                f"{path}: the column {name!r} must be there once, got "
                f"{list(columns).count(name)} of that name; rename the others."
            )


# JSON


def _json_columns(path: str, split: "Split") -> list[str]:
    names: dict[str, None] = {}
    for count, (_, _, record) in enumerate(json_records(path)):
        names |= dict.fromkeys(record)
        if count == _FIRST_RECORDS:
            break
    if not names:
        raise DataError(f"{path}: the file must have records, and has none; check the path.")
    return list(names)


def _read_json(path: str, split: "Split", names: list[str]) -> Records:
    rows: list[int] = []
    cells: dict[str, list[Any]] = {name: [] for name in names}
    seen: dict[str, None] = {}
    word = "row"
    for number, what, record in json_records(path):
        word = what
        rows.append(number)
        seen |= dict.fromkeys(record)
        for name in names:
            cells[name].append(record.get(name))
    _check_columns(path, list(seen), names)
    return Records(path, word, rows, cells)


# Parquet


@contextmanager
def _parquet(path: str) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with reading(path), open_bytes(path) as file:
        kind = kind_of(file.peek(HEAD_BYTES)[:HEAD_BYTES])
        if kind is not PARQUET:
            raise DataError(
                f"{path}: this file must be Parquet, and is {kind.name}; name it for what it is."
            )
        # Parquet is read from its end, which a compressed stream reaches only as a whole.
        is_compressed = path.lower().endswith(tuple(PACKED))
        yield pq.ParquetFile(pa.BufferReader(file.read()) if is_compressed else file)


def _parquet_columns(path: str, split: "Split") -> list[str]:
    with _parquet(path) as file:
        return [str(name) for name in file.schema_arrow.names]


def _read_parquet(path: str, split: "Split", names: list[str]) -> Records:
    with _parquet(path) as file:
        schema = file.schema_arrow
        _check_columns(path, schema.names, names)
        table = file.read(columns=names)
        cells = {name: table.column(name).to_pylist() for name in names}
        stored = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    classes = names_of_classes(stored.get("info", {}).get("features", {}))
    return Records(path, "record", range(1, table.num_rows + 1), cells, classes)


# Data sets on disk


def _dataset_columns(path: str, split: "Split") -> list[str]:
    return dataset_columns(path, split)


def _read_dataset(path: str, split: "Split", names: list[str]) -> Records:
    _check_columns(path, dataset_columns(path, split), names)
    cells, classes = read_dataset(path, split, names)
    number = len(cells[names[0]])
    return Records(path, "record", range(1, number + 1), cells, classes)


_DATASET = _WayToRead(_dataset_columns, _read_dataset)
_READERS: dict[str, _WayToRead] = {
    ".csv": _delimited(*_DELIMITERS),
    ".tsv": _delimited("\t"),
    ".json": _WayToRead(_json_columns, _read_json),
    ".jsonl": _WayToRead(_json_columns, _read_json),
    ".ndjson": _WayToRead(_json_columns, _read_json),
    ".parquet": _WayToRead(_parquet_columns, _read_parquet),
}
"""The end of a name -> how such a file is read."""
