#!/usr/bin/env python3
"""Run a federation on Flower, simulated on this machine.

What follows with is what follows it in scripts/train_federated.py. A SuperLink
is started for this run alone, and ended with it.
"""

import argparse
import signal
import sys
from pathlib import Path

# Ctrl-C during the imports ends the command without a traceback; main() then handles it.
signal.signal(signal.SIGINT, signal.SIG_DFL)
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # The script also works where the package is not installed.

from scaling_fl.commands.flower_run import NUM_NODES, main, split_at_with  # noqa: E402

_EPILOG = """\
examples:
  scripts/flower_run.py with demo
  scripts/flower_run.py --nodes 4 with demo num_rounds=3

The run is tracked under runs/ and saved under checkpoints/ of this folder, as
that of scripts/train_federated.py.

Exit code: 0 when the run completed, 1 when that failed, 2 on misuse, 130 after
Ctrl-C, 143 after SIGTERM or when the terminal was closed."""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/flower_run.py",
        usage="scripts/flower_run.py [options] with SETTING ...",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--nodes", type=int, default=NUM_NODES, metavar="N", help="simulated SuperNodes (default 2)"
    )
    add("--cpus", type=int, default=1, metavar="N", help="cores that each one has (default 1)")
    add("--gpus", type=float, default=0.0, metavar="SHARE", help="of a GPU, for each (default 0)")
    add("--secure-sum", action="store_true", help="let the server learn the sum of updates alone")
    add("--app", type=Path, default=ROOT, metavar="FOLDER", help="another Flower app than this")
    return parser


if __name__ == "__main__":
    before, settings = split_at_with(sys.argv[1:])
    options = parser().parse_args(before)
    federation = {
        "num-supernodes": options.nodes,
        "client-resources-num-cpus": options.cpus,
        "client-resources-num-gpus": options.gpus,
    }
    app = options.app.resolve()
    sys.exit(main(settings, federation=federation, app=app, is_secure=options.secure_sum))
