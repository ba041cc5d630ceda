"""A table dealt to nodes, row by row in turn, so that each has data that no other one has."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

from scaling_fl.core.errors import InputError
from scaling_fl.learning.tables.json_records import json_records
from scaling_fl.learning.tables.records import columns_of, read_records


def deal(table: str, targets: Sequence[Path], *, option: str) -> list[int]:
    """Write the rows of a table to ``targets`` in turn, as JSONL; return how many each got.

    The table was given as ``option``.

    Raises:
        InputError: the table cannot be read, or has too few rows.
    """
    counts = [0] * len(targets)
    with ExitStack() as closing:
        files = [closing.enter_context(path.open("w", encoding="utf-8")) for path in targets]
        for number, row in enumerate(_rows(table)):
            place = number % len(targets)
            files[place].write(json.dumps(row, ensure_ascii=False) + "\n")
            counts[place] += 1
    if not all(counts):
        raise InputError(
            f"{option} must have a row for each of the {len(targets)} nodes, got {sum(counts)} in "
            f"{table}; give a larger table or fewer --nodes"
        )
    return counts


def _rows(table: str) -> Iterator[dict[str, Any]]:
    if {".json", ".jsonl"} & {end.lower() for end in PurePosixPath(table).suffixes[-2:]}:
        for _, _, record in json_records(table):
            yield record
        return
    records = read_records(table, "train", columns_of(table, "train"))
    for index in range(len(records)):
        yield {name: column[index] for name, column in records.cells.items()}
