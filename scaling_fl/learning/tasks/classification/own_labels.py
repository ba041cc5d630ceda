"""The labels and the clients in the columns of a table of one's own."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from scaling_fl.learning.tables.cells import cell_name, refuse_missing
from scaling_fl.learning.tables.records import Records
from scaling_fl.learning.task import Indices
from scaling_fl.learning.text.labelled import DataError

_MOST_LABELS = 10_000
"""A confusion matrix of so many labels takes 800 MB."""
_MOST_UNIQUE, _FEW_ROWS = 0.5, 20
"""A column is no column of labels when more than this share of its rows differ from each other."""


def needed(what: str, given: Any) -> Any:
    """Return what a run chooses of the columns, which it must choose.

    Raises:
        DataError: it does not.
    """
    if not given:
        raise DataError(f"data.{what} must name the column of the {what}s, got none; give it.")
    return given


def names_in(records: Records, column: str | None, what: str, *, gaps: bool = False) -> list[str]:
    """Read the names of labels or clients; with ``gaps`` one that is missing is empty.

    Raises:
        DataError: one is missing or no name.
    """
    column = needed(what, column)
    names = [cell_name(records, row, column) for row in range(len(records))]
    if not gaps:
        refuse_missing(records, [name is None for name in names], column, f"the {what}")
    return [name or "" for name in names]


def check_labels(records: Records, column: str | None, labels: Sequence[str]) -> None:
    """Refuse a column whose different values, ``labels``, are those of no column of labels.

    Raises:
        DataError: there is a single one, or almost every row has another one.
    """
    found = f"{records.path}, column {column!r}"
    if len(labels) < 2:
        raise DataError(
            f"{found}: there must be two labels or more, got {labels[0]!r} in every row; name "
            "another column by data.label."
        )
    is_unique = len(records) >= _FEW_ROWS and len(labels) > _MOST_UNIQUE * len(records)
    if is_unique or len(labels) > _MOST_LABELS:
        raise DataError(
            f"{found}: labels must be few (at most {_MOST_LABELS}) and occur more than once, "
            f"got {len(labels)} different ones in {len(records)} rows, such as "
            f"{labels[0][:40]!r}; name the column of the labels by data.label."
        )


def label_numbers(
    records: Records, names: Sequence[str], labels: Sequence[str], column: str
) -> Indices:
    """Turn the names of labels into numbers.

    Raises:
        DataError: one of them is none of ``labels``.
    """
    index = {name: number for number, name in enumerate(labels)}
    if unknown := Counter(name for name in names if name not in index):
        first = next(row for row, name in enumerate(names) if name not in index)
        listed = ", ".join(f"{name[:40]!r} ({n}x)" for name, n in unknown.most_common(5))
        known = ", ".join(labels[:6]) + (f", ... ({len(labels)})" if len(labels) > 6 else "")
        raise DataError(
            f"{records.place(first, column)}: a label must be one of those that the model learns "
            f"({known}), got {listed}; correct or remove these rows, or list all labels by "
            "data.labels."
        )
    return np.array([index[name] for name in names], dtype=np.int64)
