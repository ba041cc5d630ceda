#!/usr/bin/env python3
"""Compare runs: one page that opens without a network, and tables of all numbers.

RUN is a folder of runs (by default runs), one run (runs/7), a job's folder or
address of checkpoints, or with mongo: all runs of the database that .env names.
"""

import argparse
import signal
import sys
from pathlib import Path

# Ctrl-C during the imports ends the command without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # The script also works where the package is not installed.

from scaling_fl.commands.report import ReportOptions, main  # noqa: E402

_EPILOG = """\
Runs that differ in nothing but seeds are a group. Groups are compared at equal
bytes, rounds, seconds and epsilon with the first group or --reference, by the
differences of the runs that share their seeds and their 95 % interval. Runs of
another task, split, metric or test data are shown, and not ranked.

Conditions are those of scripts/runs.py: status=completed, learning_rate=0.01,
validation.accuracy>0.8, ...

examples:
  scripts/report.py
  scripts/report.py runs/1 runs/2 runs/5 --out compared
  scripts/report.py --sweep rates --reference learning_rate=0.01
  scripts/report.py mongo: --query task=agnews merge.method=t*

Exit code: 0 when the report is written, 1 when it cannot be, 2 on misuse."""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/report.py",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("places", nargs="*", default=["runs"], metavar="RUN", help="where runs are, see above")
    add("--sweep", metavar="NAME", help="only the runs of a sweep")
    add("--query", nargs="+", default=[], metavar="CONDITION",
        help="only the runs of which all conditions hold")  # fmt: skip
    add("--metric", metavar="NAME", help="the metric to compare by (default: the task's)")
    add("--reference", nargs="+", default=[], metavar="CONDITION",
        help="the group that the others are compared with")  # fmt: skip
    add("--results-only", dest="is_results_only", action="store_true",
        help="without times, machines and run numbers: equal results, equal files")  # fmt: skip
    add("--out", type=Path, default=Path("report"), metavar="FOLDER",
        help="where the report goes (default: report)")  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main(ReportOptions(**vars(parser().parse_args()))))
