#!/usr/bin/env python3
"""Complete the record of runs, here, in the database and in MLflow.

A run folder whose disk was full is completed from the journal of its job. A run
whose database or MLflow server was away keeps its whole record in its folder:
this brings up to date what is named in the environment or in .env, the database
by SACRED_MONGO_URI (or SACRED_USER, _PASSWORD, _HOST and _DATABASE) and the
server by MLFLOW_TRACKING_URI. Doing it twice changes nothing.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # The script also works where the package is not installed.

from scaling_fl.commands.sync import main  # noqa: E402

_EPILOG = """\
examples:
  scripts/sync_runs.py
  scripts/sync_runs.py --runs-dir /data/runs --all

Exit code: 0 when all is delivered, 1 when one of them is away, 2 on misuse."""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/sync_runs.py",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="default: runs")
    parser.add_argument(
        "--all", action="store_true", help="compare runs that are marked as delivered, too"
    )
    return parser


if __name__ == "__main__":
    options = parser().parse_args()
    sys.exit(main(options.runs_dir, again=options.all))
