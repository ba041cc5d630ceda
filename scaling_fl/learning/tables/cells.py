"""Cells of a table as texts and names, with one sentence for what is neither."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from scaling_fl.learning.tables.records import Records
from scaling_fl.learning.text.labelled import DataError


def cell_text(records: Records, row: int, column: str) -> str | None:
    """Return a cell as text; None when it is missing.

    Raises:
        DataError: it is neither a text nor a number, or not UTF-8.
    """
    cell = records.cells[column][row]
    if isinstance(cell, str):
        if not cell.isascii():
            _check_unicode(records, row, column, cell)
        return cell if cell.strip() else None
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))  # a column of whole numbers with a gap is one of fractions
    if isinstance(cell, list | tuple | dict | set | bytes):
        raise DataError(
            f"{records.place(row, column)}: a cell must be a text or a number, got "
            f"{type(cell).__name__} {str(cell)[:40]}; name another column, or write texts."
        )
    return str(cell)


def cell_name(records: Records, row: int, column: str) -> str | None:
    """Return a cell as a name, of a class if its numbers stand for such; None when it is missing.

    Raises:
        DataError: as ``cell_text``.
    """
    classes = records.classes.get(column)
    cell = records.cells[column][row]
    if classes and isinstance(cell, int):
        return classes[cell] if 0 <= cell < len(classes) else None
    text = cell_text(records, row, column)
    return None if text is None else text.strip()


def _check_unicode(records: Records, row: int, column: str, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(
            f"{records.place(row, column)}: the file must be UTF-8, and this cell is not; save it "
            "with that encoding."
        ) from None


def refuse_missing(records: Records, missing: Sequence[bool], column: str, what: str) -> None:
    """Refuse a table without rows, or with rows that lack ``what`` is in a column.

    Raises:
        DataError: naming the first of these rows.
    """
    if not len(records):
        raise DataError(f"{records.path}: the table must have rows, and has none; add some.")
    if number := sum(missing):
        more = "" if number == 1 else f" (the first of {number} such {records.word}s)"
        raise DataError(
            f"{records.place(missing.index(True), column)}: {what} must not be missing{more}; "
            "fill it in or remove the row."
        )


def group_numbers(records: Records, column: str) -> NDArray[np.int64]:
    """Number the groups in a column by their names, and return that of each row.

    Raises:
        DataError: a row names none.
    """
    names = [cell_name(records, row, column) for row in range(len(records))]
    refuse_missing(records, [name is None for name in names], column, "the group")
    index = {name: number for number, name in enumerate(sorted_names(map(str, names)))}
    return np.array([index[str(name)] for name in names], dtype=np.int64)


def sorted_names(names: Iterable[str]) -> list[str]:
    """Sort the different names; numbers by their value."""
    different = sorted(set(names))
    try:
        values = {name: float(name) for name in different}
    except ValueError:
        return different
    are_finite = all(map(math.isfinite, values.values()))
    return sorted(different, key=values.__getitem__) if are_finite else different
