#!/usr/bin/env python3
"""Ask four questions about merging, by small real runs, and answer with tables and pictures.

How far apart do clients get? What does a merge gain over the mean in a round?
Does that shrink from round to round? Where does plain FedAvg fail?

MiniLM learns four topics of 20 Newsgroups; the first start fetches both. Every
number is what one training command comes to, and OUT/*.csv name the commands.
Runs that are complete in OUT/jobs are read and not repeated.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

# Ctrl-C during the imports ends the command without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # The script also works where the package is not installed.

_EPILOG = """\
examples:
  scripts/merging_playground.py
  scripts/merging_playground.py --seed 2 --out runs/playground-2

Exit code: 0 when done, 1 when that failed, 2 on misuse, 130 after Ctrl-C."""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/merging_playground.py",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/playground"), help="where all of it goes")
    add("--seed", type=int, default=1, help="seed of the split, the model and the order")
    add("--processes", type=int, default=os.cpu_count() or 1, help="runs beside each other")
    add("--quick", action="store_true", help="the tiny model on few texts, which learns nothing")
    return parser


if __name__ == "__main__":
    options = parser().parse_args()
    # Not above: this takes seconds, which a wrong option is spared.
    from scaling_fl.commands.playground import main

    sys.exit(
        main(
            out=options.out,
            seed=options.seed,
            is_quick=options.quick,
            num_processes=options.processes,
        )
    )
