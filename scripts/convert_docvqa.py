#!/usr/bin/env python3
"""Turn the files of the PFL-DocVQA competition into a table for task_name=docvqa.

FILE is imdb_train_client_0.npy and the like, or imdb_val.npy. They hold
pickles, which this command alone reads, as data: whatever else stands in them
is refused and never run. --out is a Parquet file with a row for each
question: question, answers, words, boxes, image, client, provider,
question_id and set_name.
"""

import argparse
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # The script also works where the package is not installed.

_EPILOG = """\
examples:
  scripts/convert_docvqa.py imdb_train_client_*.npy --out train.parquet \\
      --providers data_points.json --images images
  scripts/convert_docvqa.py imdb_val.npy --out val.parquet --images images

Exit code: 0 when written, 1 when that failed, 2 on misuse or wrong files."""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/convert_docvqa.py",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help="what to read, see above")
    add("--out", type=Path, required=True, metavar="FILE", help="the Parquet file to write")
    add(
        "--providers",
        type=Path,
        metavar="FILE",
        help="data_points.json, which says which records of a client are of which provider",
    )
    add(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="where the pages are; with it every page must be there",
    )
    return parser


if __name__ == "__main__":
    # Ctrl-C during the imports ends the command without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    options = parser().parse_args()
    # Not above: this takes seconds, which nobody who asks for help or mistypes should wait for.
    from scaling_fl.commands.convert_docvqa import main

    sys.exit(main(vars(options)))
