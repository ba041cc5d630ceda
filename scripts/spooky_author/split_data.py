#!/usr/bin/env python
"""Split the Spooky Author Identification data 75/25 into training and test data.

The files are the same at every call, as in the published experiments. The data
is train.csv of https://www.kaggle.com/c/spooky-author-identification.

examples:
  scripts/spooky_author/split_data.py --full-path train.csv \\
      --train-path data/train.csv --test-path data/test.csv
  scripts/spooky_author/split_data.py --full-path ~/Downloads/train.csv \\
      --train-path s3://bucket/train.csv --test-path s3://bucket/test.csv
"""

import argparse
import csv
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # The script also works where the package is not installed.

from scaling_fl.commands.endings import Misused, end  # noqa: E402
from scaling_fl.core.errors import UserError  # noqa: E402
from scaling_fl.learning.tables.delimited import (  # noqa: E402
    check_row,
    find_columns,
    read_rows,
)
from scaling_fl.learning.tables.sources import is_remote  # noqa: E402
from scaling_fl.learning.text.labelled import DataError  # noqa: E402

COLUMNS = ("id", "text", "author")
Cells = list[str]


def read_full(path: str) -> tuple[Cells, list[Cells]]:
    """Read the header and the rows of the downloaded file, with the column ``id`` first.

    Raises:
        DataError: naming the row that has more or fewer columns than the header.
    """
    rows = read_rows(path)
    header = next(rows, None)
    if header is None:
        raise DataError(f"{path}: the file must have rows, and is empty; download it again.")
    places = find_columns(path, header, COLUMNS, COLUMNS, header="required")
    found = []
    for row in rows:
        check_row(path, row, places, len(header.cells))
        found.append(_with_first(places["id"], row.cells))
    if len(found) < 4:
        raise DataError(
            f"{path}: there must be at least 4 rows to split, got {len(found)}; use train.csv of "
            "the competition."
        )
    return _with_first(places["id"], header.cells), found


def split(full_path: str, train_path: str, test_path: str) -> tuple[int, int]:
    """Write both files, or neither, and return how many rows each got."""
    from sklearn.model_selection import train_test_split

    for one, other in combinations((full_path, train_path, test_path), 2):
        if _is_same(one, other):
            raise Misused(
                "--full-path, --train-path and --test-path must be three files, and "
                f"{one} and {other} are one; nothing was written"
            )
    header, rows = read_full(full_path)
    # The seed and the share are the published experiments' own.
    train, test = train_test_split(rows, test_size=0.25, shuffle=True, random_state=1)
    _write({train_path: [header, *train], test_path: [header, *test]})
    return len(train), len(test)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/spooky_author/split_data.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--full-path", metavar="FILE", required=True, help="the competition's train.csv"
    )
    parser.add_argument(
        "--train-path", metavar="FILE", required=True, help="where the 75 %% for training go"
    )
    parser.add_argument(
        "--test-path", metavar="FILE", required=True, help="where the 25 %% for testing go"
    )
    given = parser.parse_args(arguments)

    def action() -> None:
        num_train, num_test = split(given.full_path, given.train_path, given.test_path)
        print(f"{num_train} rows to {given.train_path}, {num_test} rows to {given.test_path}")

    return end(action, with_environment=False)


def _with_first(place: int, cells: Cells) -> Cells:
    return [cells[place], *cells[:place], *cells[place + 1 :]]


def _is_same(one: str, other: str) -> bool:
    """Say whether two paths are one file: through links, or on a disk that ignores capitals."""
    if is_remote(one) or is_remote(other):
        return one == other
    if os.path.exists(one) and os.path.exists(other):
        return os.path.samefile(one, other)
    return os.path.realpath(one).casefold() == os.path.realpath(other).casefold()


def _write(files: Mapping[str, list[Cells]]) -> None:
    """Write all files beside their places, and only then put each into its place."""
    staged: dict[Path, Path] = {}
    try:
        for path, rows in files.items():
            try:
                if is_remote(path):  # such a store shows a file once it is whole
                    _write_rows(path, path, rows)
                    continue
                place = Path(os.path.realpath(path))
                if place.exists() and not place.is_file():
                    raise Misused(f"{path} must be a file, and is none; choose another place")
                place.parent.mkdir(parents=True, exist_ok=True)
                staged[place] = place.with_name(f".{place.name}.{os.getpid()}")
                _write_rows(str(staged[place]), path, rows)
            except OSError as error:
                raise UserError(
                    f"{path}: this file must be writable, and is not ({error.strerror or error}); "
                    "choose another place."
                ) from error
        for place, whole in staged.items():
            if place.exists():
                shutil.copymode(place, whole)
            os.replace(whole, place)
    finally:
        for whole in staged.values():
            whole.unlink(missing_ok=True)


def _write_rows(place: str, name: str, rows: list[Cells]) -> None:
    """Write rows, packed as the suffix of ``name`` says."""
    import fsspec
    from fsspec.utils import infer_compression

    options: dict[str, Any] = {"encoding": "utf-8", "newline": ""}
    with fsspec.open(place, "wt", compression=infer_compression(name), **options) as file:
        csv.writer(file, lineterminator=os.linesep).writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
