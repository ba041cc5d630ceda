#!/usr/bin/env python
"""Split the Spooky Author Identification data 75/25 into a training and a test file.

usage: split_data.py --full-path train.csv --train-path mine/train.csv --test-path mine/test.csv
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # The script also works where the package is not installed.

from scaling_fl.commands.endings import end  # noqa: E402
from scaling_fl.core.errors import UserError  # noqa: E402

COLUMNS = ["text", "author"]


def read_full(path: str) -> "pd.DataFrame":
    """Read the downloaded file by its ``id`` column, every cell as the text that it is."""
    import pandas as pd

    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{path}: this file must exist, and does not; check --full-path.") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        reason = str(error).strip().rstrip(".")
        raise UserError(
            f"{path}: this must be a UTF-8 CSV file ({reason}); download it again."
        ) from error
    missing = [column for column in ["id", *COLUMNS] if column not in frame.columns]
    if missing:
        raise UserError(
            f"{path}, row 1, column {missing[0]!r}: the header must be id,text,author, got "
            f"{','.join(frame.columns)[:80]}; use train.csv of the competition."
        )
    if len(frame) < 4:
        raise UserError(
            f"{path}: there must be at least 4 rows to split, got {len(frame)}; use train.csv of "
            "the competition."
        )
    return frame.set_index("id")


def split(full_path: str, train_path: str, test_path: str) -> tuple[int, int]:
    """Write both files and return how many rows each got."""
    from sklearn.model_selection import train_test_split

    if len({full_path, train_path, test_path}) < 3:
        raise UserError(
            "--full-path, --train-path and --test-path must be three files, got one of them "
            "twice; nothing was written."
        )
    frame = read_full(full_path)
    # The seed and the share are the published experiments' own.
    train, test = train_test_split(frame, test_size=0.25, shuffle=True, random_state=1)
    for part, path in ((train, train_path), (test, test_path)):
        _write(part, path)
    return len(train), len(test)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full-path", required=True, help="the competition's train.csv")
    parser.add_argument("--train-path", required=True, help="where the 75 %% for training go")
    parser.add_argument("--test-path", required=True, help="where the 25 %% for testing go")
    given = parser.parse_args(arguments)

    def action() -> None:
        num_train, num_test = split(given.full_path, given.train_path, given.test_path)
        print(f"{num_train} rows to {given.train_path}, {num_test} rows to {given.test_path}")

    return end(action, with_environment=False)


def _write(part: "pd.DataFrame", path: str) -> None:
    try:
        if "://" not in path:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        part.to_csv(path)
    except OSError as error:
        raise UserError(
            f"{path}: this file must be writable, and is not ({error.strerror or error}); "
            "choose another place."
        ) from error


if __name__ == "__main__":
    sys.exit(main())
