"""Tables of labelled texts: CSV as the Crepe files have it, and tab-separated files."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from scaling_fl.learning.tables.sources import open_text, reading
from scaling_fl.learning.text.labelled import DataError, Labelled

_LARGEST_FIELD = 2**31 - 1
_DELIMITERS = {"\t": "tabs", ";": "semicolons", "|": "bars"}


@dataclass(frozen=True)
class Row:
    """A row and the line of the file in which it begins; the first line is 1."""

    number: int
    cells: list[str]


@dataclass(frozen=True, kw_only=True)
class Format:
    """What a task's table looks like; ``columns`` are in the order of a file without header."""

    columns: tuple[str, ...]
    label_column: str
    labels: Mapping[str, int]
    header: str = "optional"
    """``required``, or ``optional``: then a first cell that is a number means there is none."""


def read_rows(path: str, *, delimiter: str = ",", quoted: bool = True) -> Iterator[Row]:
    """Yield the rows of a table that are not blank; a quoted text may hold line breaks.

    Raises:
        DataError: when the file cannot be read or its quotation marks are wrong.
    """
    csv.field_size_limit(_LARGEST_FIELD)
    with reading(path), open_text(path) as file:
        reader = csv.reader(
            file,
            delimiter=delimiter,
            quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
            strict=True,
        )
        number = 1
        try:
            for cells in reader:
                if cells:
                    yield Row(number, cells)
                number = reader.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"{path}, row {number}: a text with quotation marks must be quoted and its own "
                f'ones written as "", and this row is not ({error}); correct the row.'
            ) from None


def read_table(
    path: str,
    rows: Iterable[Row],
    form: Format,
    texts: Sequence[str],
    *,
    clean: Callable[[str], str] | None = None,
) -> Labelled:
    """Read labels and texts out of rows; several ``texts`` columns are joined by a space.

    Raises:
        DataError: naming file, row and column of the first thing that is wrong.
    """
    places, width, body = _locate(path, iter(rows), form, [form.label_column, *texts])
    found: list[str] = []
    labels: list[int] = []
    for row in body:
        check_row(path, row, places, width)
        labels.append(_label(path, row, places, form))
        joined = " ".join(_text(path, row, places, column) for column in texts)
        found.append(clean(joined) if clean else joined)
    if not found:
        raise DataError(
            f"{path}: the table must have rows below its header, and has none; add some."
        )
    return Labelled(found, np.array(labels, dtype=np.int64))


def _locate(
    path: str, rows: Iterator[Row], form: Format, needed: Sequence[str]
) -> tuple[dict[str, int], int, Iterator[Row]]:
    """Find the columns; return their places, the number of columns, and the rows with data."""
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path}: the file must have rows, and is empty; check the path.")
    if form.header == "optional" and _is_number(first.cells[0]):
        places = {name: place for place, name in enumerate(form.columns)}
        return places, len(form.columns), chain([first], rows)
    return (
        find_columns(path, first, form.columns, needed, header=form.header),
        len(first.cells),
        rows,
    )


def find_columns(
    path: str, first: Row, columns: Sequence[str], needed: Sequence[str], *, header: str
) -> dict[str, int]:
    """Find the places of some of the ``columns`` in the row that names them.

    Raises:
        DataError: naming the column that is not there, or there more than once.
    """
    names = [cell.strip().casefold() for cell in first.cells]
    for column in needed:
        found = names.count(column.casefold())
        if found == 0:
            raise DataError(_no_such_column(path, first, columns, column, header))
        if found > 1:
            raise DataError(
                f"{path}, row {first.number}, column {column!r}: the header must name this column "
                f"once, and names it {found} times; rename or remove the others."
            )
    return {column: names.index(column.casefold()) for column in needed}


def _no_such_column(path: str, first: Row, columns: Sequence[str], column: str, header: str) -> str:
    given = ",".join(first.cells).encode("utf-8", "replace").decode("utf-8")
    shown = given if len(given) <= 80 else given[:77] + "..."
    for delimiter, what in _DELIMITERS.items():
        if len(first.cells) == 1 and column.casefold() in _split(given, delimiter):
            return (
                f"{path}, row {first.number}: commas must separate the columns, and {what} do, got "
                f"{shown!r}; save the table with commas."
            )
    or_number = "" if header == "required" else ", or start with a label when there is none"
    return (
        f"{path}, row {first.number}, column {column!r}: the header must name this "
        f"column{or_number}, got {shown!r}; name the columns {','.join(columns)}."
    )


def _split(header: str, delimiter: str) -> list[str]:
    return [name.strip().strip('"').casefold() for name in header.split(delimiter)]


def check_row(path: str, row: Row, places: Mapping[str, int], width: int) -> None:
    """Check that a row has as many columns as the table, and is UTF-8.

    Raises:
        DataError: naming file, row and column.
    """
    if len(row.cells) != width:
        column = _name_of(places, min(len(row.cells), width - 1))
        raise DataError(
            f"{path}, row {row.number}, column {column}: the row must have {width} columns, got "
            f"{len(row.cells)}; correct the row (a text with commas needs quotation marks)."
        )
    for place, cell in enumerate(row.cells):
        if not cell.isascii() and not _is_utf8(cell):
            raise DataError(
                f"{path}, row {row.number}, column {_name_of(places, place)}: the file must be "
                "UTF-8, and this cell is not; save it with that encoding."
            )


def _label(path: str, row: Row, places: Mapping[str, int], form: Format) -> int:
    cell = row.cells[places[form.label_column]].strip()
    if cell not in form.labels:
        allowed = list(form.labels)
        listed = ", ".join(allowed[:5]) + (", ..." if len(allowed) > 5 else "")
        raise DataError(
            f"{path}, row {row.number}, column {form.label_column!r}: the label must be one of "
            f"{listed}, got {cell[:40]!r}; correct the row."
        )
    return form.labels[cell]


def _text(path: str, row: Row, places: Mapping[str, int], column: str) -> str:
    cell = row.cells[places[column]]
    if not cell.strip():
        raise DataError(
            f"{path}, row {row.number}, column {column!r}: the text must not be missing, got "
            f"{cell!r}; fill it in or remove the row."
        )
    return cell


def _name_of(places: Mapping[str, int], place: int) -> str:
    return next((repr(name) for name, at in places.items() if at == place), str(place + 1))


def _is_number(cell: str) -> bool:
    return cell.strip().lstrip("+-").replace(".", "", 1).isdigit()


def _is_utf8(cell: str) -> bool:
    try:
        cell.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
