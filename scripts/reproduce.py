#!/usr/bin/env python3
"""Try a published claim at a size that this machine runs, and say what holds.

CLAIM is one of those that are listed without it, or a YAML file such as those in
configs/claims. Its runs are a sweep: what is finished is not run again, so that
after Ctrl-C the same command goes on. What is said of a difference is said by
the 95 % interval over seeds: it holds, it does not hold, or it cannot be told.
"""

import argparse
import signal
import sys
from pathlib import Path

# Ctrl-C during the imports ends the command without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # The script also works where the package is not installed.

from scaling_fl.commands.arguments import count, sites  # noqa: E402
from scaling_fl.commands.reproduce import ReproduceOptions, main  # noqa: E402
from scaling_fl.commands.sweeps.sweep import SWEEPS_DIR  # noqa: E402

_EPILOG = """\
examples:
  scripts/reproduce.py
  scripts/reproduce.py nf4
  scripts/reproduce.py flasc --parallel 2
  scripts/reproduce.py merges --dry-run

Exit code: 0 when the claim was tried, whatever came of it, 1 when a run failed,
2 on misuse, 130 after Ctrl-C, 143 after SIGTERM or when the terminal was closed."""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/reproduce.py",
        usage="%(prog)s [CLAIM] [options] [with SETTING ...]",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("claim", nargs="?", metavar="CLAIM", help="the claim; without one, all are listed")
    add("--sites", type=sites, default=[], metavar="0,1",
        help="the GPUs (or CPU slots) to use, dealt to the runs at work")  # fmt: skip
    add("--parallel", type=count, default=1, metavar="N", help="how many runs are at work at once")
    add("--sweeps-dir", dest="place", default=SWEEPS_DIR, metavar="PLACE",
        help="where queues are: a folder, s3://, gs:// or mongo: (default: sweeps)")  # fmt: skip
    add("--dry-run", dest="is_dry", action="store_true",
        help="say what would be run, and run nothing")  # fmt: skip
    add("--out", type=Path, metavar="FOLDER",
        help="where the report goes (default: reproduce-CLAIM)")  # fmt: skip
    return parser


def read(argv: list[str]) -> ReproduceOptions:
    """Read the command line; settings for all runs follow the word with."""
    position = argv.index("with") if "with" in argv else len(argv)
    given = vars(parser().parse_args(argv[:position]))
    return ReproduceOptions(**given, words=argv[position + 1 :])


if __name__ == "__main__":
    sys.exit(main(read(sys.argv[1:])))
