#!/usr/bin/env python3
"""Show a run as its own console does: its lines so far, then live until it ends.

RUN is a run folder (runs/7), a job's folder of checkpoints (checkpoints/job),
its s3:// or gs:// address, or a run in the database that .env names (mongo:7);
without RUN it is the newest in runs. A run on this machine is live with its
bars. From another machine a run in MongoDB is some seconds late, and an address
is as late as its newest checkpoint.
"""

import argparse
import signal
import sys
from pathlib import Path

# Ctrl-C during the imports ends the command without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # The script also works where the package is not installed.

from scaling_fl.commands.watch import main  # noqa: E402

_EPILOG = """\
examples:
  scripts/watch.py
  scripts/watch.py runs/7
  scripts/watch.py checkpoints/my_job --once

Exit code: 0 when the run has ended, however it did, 1 when it cannot be read,
2 on misuse, 130 after Ctrl-C, which ends the watching and not the run."""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/watch.py",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("run", nargs="?", metavar="RUN", help="what to watch, see above")
    add("--runs-dir", type=Path, default=Path("runs"), help="where the newest run is looked for")
    add("--once", action="store_true", help="show what there is by now, and end")
    return parser


if __name__ == "__main__":
    options = parser().parse_args()
    sys.exit(main(options.run, runs_dir=options.runs_dir, is_once=options.once))
