#!/usr/bin/env python3
"""Run many experiments: grids, seeds and lists of them, each run finished once.

FILE is YAML: one experiment or a list of them, each a mapping of config (what
follows with), overrides, and what varies: grid, zip and seeds. A run is found
again by its settings, its data and the code: what is finished is skipped, what
was interrupted goes on, and what failed is tried twice more. So after Ctrl-C, a
crash or a power cut the same command goes on.
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
from scaling_fl.commands.sweeps.sweep import SWEEPS_DIR, SweepOptions, main  # noqa: E402

_EPILOG = """\
examples:
  scripts/run_experiments.py --config-list configs/sweeps/merges.yaml --dry-run
  scripts/run_experiments.py --config-list configs/sweeps/merges.yaml
  scripts/run_experiments.py --config-list my.yaml --sites 0,1 --parallel 2
  scripts/run_experiments.py --config-list my.yaml with num_rounds=50
  scripts/run_experiments.py --queue my

Exit code: 0 when all runs are finished, 1 when some failed, 2 on misuse, 130
after Ctrl-C, 143 after SIGTERM or when the terminal was closed."""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/run_experiments.py",
        usage="%(prog)s (--config-list FILE | --queue NAME) [options] [with SETTING ...]",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config-list", dest="file", type=Path, metavar="FILE",
        help="the experiments, see above")  # fmt: skip
    source.add_argument("--queue", metavar="NAME",
        help="the runs that others have put into the queue of a sweep")  # fmt: skip
    add = parser.add_argument
    add("--name", help="the name of the sweep (default: that in FILE, or of FILE)")
    add("--sites", type=sites, default=[], metavar="0,1",
        help="the GPUs (or CPU slots) to use, dealt to the runs at work")  # fmt: skip
    add("--parallel", type=count, default=1, metavar="N", help="how many runs are at work at once")
    add("--sweeps-dir", dest="place", default=SWEEPS_DIR, metavar="PLACE",
        help="where queues are: a folder, s3://, gs:// or mongo: (default: sweeps)")  # fmt: skip
    add("--dry-run", dest="is_dry", action="store_true",
        help="say what would be run, its bytes and epsilon, and run nothing")  # fmt: skip
    add("--time", dest="with_time", action="store_true",
        help="with --dry-run: measure how long it would take, too")  # fmt: skip
    add("--add-only", dest="is_adding", action="store_true",
        help="put the runs into the queue, for --queue elsewhere, and run none")  # fmt: skip
    add("--retry-failed", dest="retries_failed", action="store_true",
        help="try again what has failed for good")  # fmt: skip
    return parser


def read(argv: list[str]) -> SweepOptions:
    """Read the command line; settings for all runs follow the word with."""
    position = argv.index("with") if "with" in argv else len(argv)
    given = parser()
    options = vars(given.parse_args(argv[:position]))
    words, queue = argv[position + 1 :], options.pop("queue")
    if queue and (words or options["is_dry"] or options["is_adding"] or options["name"]):
        given.error("--queue takes what is there: --name, --dry-run, --add-only and with must go")
    if options["with_time"] and not options["is_dry"]:
        given.error("--time must come with --dry-run")
    options["name"] = queue or options["name"]
    return SweepOptions(**options, words=words)


if __name__ == "__main__":
    sys.exit(main(read(sys.argv[1:])))
