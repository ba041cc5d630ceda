#!/usr/bin/env python3
"""List runs: how each ended, what it reached, and in which settings they differ.

PLACE is a folder of runs (by default runs), one run (runs/7), a job's folder or
address of checkpoints, or with mongo: all runs of the database that .env names.
A run that is recorded as running and has no process any more is DEAD.
"""

import argparse
import signal
import sys
from pathlib import Path

# Ctrl-C during the imports ends the command without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # The script also works where the package is not installed.

from scaling_fl.commands.runs import ListOptions, main  # noqa: E402

_EPILOG = """\
Each run is a line: its rounds, the last value of the metric, the bytes that all
clients sent and received, its epsilon if it has privacy, and the settings that
are not the same in all listed runs. A terminal cuts lines to its width; a pipe,
--json and --csv have all of them, and more.

Conditions name a column (status, task, job, rounds, bytes, epsilon, seconds,
host, ...), a metric or a setting; texts may have * and ?.

examples:
  scripts/runs.py
  scripts/runs.py --task agnews --where 'validation.accuracy>0.8'
  scripts/runs.py --where merge.method=ties --sort bytes
  scripts/runs.py mongo: --status dead --json

Exit code: 0 when the list is whole (an empty one, too), 1 when a place cannot
be read, 2 on misuse."""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/runs.py",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("places", nargs="*", default=["runs"], metavar="PLACE", help="where runs are, see above")
    add("--status", help="only those that ended so, such as completed or dead")
    add("--task", help="only those of a task")
    add("--job", metavar="NAME", help="only those of a job, such as 'my_sweep-*'")
    add("--where", action="append", default=[], metavar="CONDITION",
        help="only those of which it holds: name=value, name!=value, name>number, ...; "
        "may be given again")  # fmt: skip
    add("--metric", metavar="NAME", help="the metric that is shown (default: the task's)")
    add("--sort", metavar="NAME", help="order by a column, metric or setting")
    add("--descending", action="store_true", help="the other way round")
    add("--json", dest="form", action="store_const", const="json", default="text",
        help="all columns, metrics and settings")  # fmt: skip
    add("--csv", dest="form", action="store_const", const="csv",
        help="all columns, metrics, and the settings that differ")  # fmt: skip
    return parser


if __name__ == "__main__":
    options = vars(parser().parse_args())
    options["is_descending"] = options.pop("descending")
    sys.exit(main(ListOptions(**options)))
