#!/usr/bin/env python3
"""Show what the language model of a run answers before and after its training.

CHECKPOINT is one checkpoint (checkpoints/job/round-000012), a job's folder of
checkpoints (the newest whole one is taken), the s3:// or gs:// address of
either, or a tracked run (runs/7, or mongo:7 of the database that .env names).

Prompts are put into the run's own template. The model always takes the
likeliest token, so that the answers are the same each time.
"""

import argparse
import signal
import sys
from pathlib import Path
from typing import get_args

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # The script also works where the package is not installed.

from scaling_fl.commands.arguments import client, count  # noqa: E402
from scaling_fl.config.types import DeviceName  # noqa: E402

_EPILOG = """\
examples:
  scripts/generate.py runs/7 --prompt "Name three colours."
  scripts/generate.py checkpoints/my_job --prompts prompts.txt --json

Exit code: 0 when done, 1 when that failed, 2 on misuse."""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/generate.py",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="whose model answers, see above")
    add("--prompt", metavar="TEXT", nargs="+", default=[], help="what it is asked")
    add("--prompts", metavar="FILE", help="a text file with one prompt a line")
    add(
        "--max-tokens",
        type=count,
        default=64,
        metavar="N",
        help="tokens of an answer at most (default: 64)",
    )
    add(
        "--max-seq-len",
        type=count,
        metavar="N",
        help="tokens of a prompt and its answer at most (default: as the run had it)",
    )
    add(
        "--device",
        choices=get_args(DeviceName),
        help="default: the CPU after a run with device=cpu, else a GPU if there is one",
    )
    add(
        "--model",
        metavar="MODEL",
        help="where the base model is now; its weights must be those of the run",
    )
    add(
        "--client",
        type=client,
        metavar="N",
        help="the model of one client alone, where each client keeps a part of it",
    )
    add(
        "--node",
        metavar="FOLDER",
        help="memory/JOB on the node of that client, if the client was on another machine",
    )
    add("--json", action="store_true", help="write one JSON object, and nothing else")
    return parser


if __name__ == "__main__":
    # Ctrl-C during the imports ends the command without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    options = parser().parse_args()
    # Not above: this takes seconds, which nobody who asks for help or mistypes should wait for.
    from scaling_fl.commands.generate import main

    sys.exit(main(vars(options)))
