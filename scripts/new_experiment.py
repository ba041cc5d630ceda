#!/usr/bin/env python3
"""Write the folder of a new experiment in instruction tuning.

FOLDER then holds config.yaml, a README.md that states the settings of that
file, DATA.md about the data, and made-up examples, so that it runs at once.
What is not given by --data is asked for, in a terminal. A folder that is not
empty is left alone.
"""

import argparse
import re
import signal
import sys
from pathlib import Path

# Ctrl-C during the imports ends the command without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # The script also works where the package is not installed.

from scaling_fl.commands.new_experiment import main, questions  # noqa: E402

_EPILOG = """\
examples:
  scripts/new_experiment.py medical
  scripts/new_experiment.py medical --defaults
  scripts/new_experiment.py news --defaults --data task_name=generalnlp \\
      --data base_model=HuggingFaceTB/SmolLM2-135M-Instruct --data peft_lora_r=8

questions, with the answers of --defaults:
{answers}

Exit code: 0 when written, 1 when that failed, 2 on misuse, 130 after Ctrl-C."""


def parser() -> argparse.ArgumentParser:
    answers = [f"  {name}={_shown(details['default'])}" for name, details in questions().items()]
    parser = argparse.ArgumentParser(
        prog="scripts/new_experiment.py",
        description=__doc__,
        epilog=_EPILOG.format(answers="\n".join(answers)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="the folder to write, new or empty")
    add("--data", action="append", default=[], metavar="NAME=VALUE", help="answer a question")
    add("--defaults", action="store_true", help="ask nothing, and answer as below")
    return parser


def _shown(default: object) -> str:
    """Write a default that is made of what is given: {{ folder }} as FOLDER."""
    return re.sub(r"{{ (\w+) }}", lambda made: made[1].upper(), str(default))


if __name__ == "__main__":
    sys.exit(main(vars(parser().parse_args())))
