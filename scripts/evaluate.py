#!/usr/bin/env python3
"""Evaluate what a run has saved, on the test data of its task or on other data.

CHECKPOINT is one checkpoint (checkpoints/job/round-000012), a job's folder of
checkpoints (the newest whole one is taken), the s3:// or gs:// address of
either, or a tracked run (runs/7, or mongo:7 of the database that .env names).

Everything is as the run had it unless an option changes it, so that the
metrics are those that the run reported for that round: on a CPU to the last
bit.
"""

import argparse
import signal
import sys
from pathlib import Path
from typing import get_args

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # The script also works where the package is not installed.

from scaling_fl.commands.arguments import client, count  # noqa: E402
from scaling_fl.config.types import DeviceName, QuestionLayoutName, QuestionRule, TaskName  # noqa: E402

_EPILOG = """\
examples:
  scripts/evaluate.py runs/7
  scripts/evaluate.py checkpoints/my_job/round-000012 --per-class
  scripts/evaluate.py s3://bucket/my_job --test-path other.csv --json
  scripts/evaluate.py runs/9 --questions mmlu.jsonl --layout mmlu
  scripts/evaluate.py runs/9 --harness arc_easy,hellaswag --max-questions 200

Exit code: 0 when evaluated, 1 when that failed, 2 on misuse."""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/evaluate.py",
        usage="%(prog)s CHECKPOINT [options]",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="what to evaluate, see above")
    add_test_data(parser)
    add_questions(parser)
    parser.add_argument(
        "--json", action="store_true", help="write one JSON object, and nothing else"
    )
    return parser


def add_test_data(parser: argparse.ArgumentParser) -> None:
    """Add the options about the test data, and those about the model."""
    add = parser.add_argument
    add(
        "--task-name",
        metavar="NAME",
        choices=get_args(TaskName),
        help="another task of the same labels, with --test-path",
    )
    add("--test-path", metavar="PATH", help="other test data: local, s3:// or gs://")
    for name, what in (("text", "texts"), ("text-pair", "second texts"), ("label", "labels")):
        add(
            f"--{name}",
            metavar="COLUMN" + "S" * (name != "label"),
            help=f"other columns of the {what} in a table",
        )
    add("--max-seq-len", type=count, metavar="N", help="tokens of a text that are kept")
    add("--batch-size", type=count, metavar="N", help="test examples in a batch")
    add(
        "--max-test-examples",
        type=count,
        metavar="N",
        help="size of a random subset (default: as in the run, all of other data)",
    )
    add(
        "--device",
        choices=get_args(DeviceName),
        help="default: the CPU if the run had device=cpu, or no GPU is there",
    )
    add(
        "--model",
        metavar="MODEL",
        help="where the base model is now, with the run's weights",
    )
    add(
        "--client",
        type=client,
        metavar="N",
        help="one client's model, where each client keeps a part",
    )
    add(
        "--node",
        metavar="FOLDER",
        help="memory/JOB on the node of that client, if that is there",
    )
    add("--per-class", action="store_true", help="precision, recall and F1 of every class, too")
    add("--tiers", action="store_true", help="what each tier of clients would receive, too")


def add_questions(parser: argparse.ArgumentParser) -> None:
    """Add the options about questions."""
    asked = parser.add_argument_group(
        "questions", "what a language model is asked in place of the test data"
    )
    add = asked.add_argument
    add("--questions", metavar="FILE", nargs="+", help="files of multiple-choice questions")
    add(
        "--layout",
        choices=get_args(QuestionLayoutName),
        help=f"columns of the files: {', '.join(get_args(QuestionLayoutName))}",
        metavar="NAME",
    )
    add(
        "--rule",
        choices=get_args(QuestionRule),
        help="of answers: " + " (default) or ".join(get_args(QuestionRule)),
        metavar="NAME",
    )
    add(
        "--max-questions",
        type=count,
        metavar="N",
        help="random subset of each file; first N of each harness task",
    )
    add(
        "--harness",
        metavar="TASKS",
        help="tasks of lm-evaluation-harness (an extra), with commas",
    )
    add(
        "--harness-folder",
        metavar="FOLDER",
        help="where your own YAML files of such tasks are",
    )


if __name__ == "__main__":
    # Ctrl-C during the imports ends the command without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    options = parser().parse_args()
    # Not above: this takes seconds, which nobody who asks for help or mistypes should wait for.
    from scaling_fl.commands.evaluate import main

    sys.exit(main(vars(options)))
