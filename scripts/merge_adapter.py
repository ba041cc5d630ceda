#!/usr/bin/env python3
"""Turn checkpoints into a model folder that transformers, or PEFT, can load.

One checkpoint is written as it is, several of the same model and adapter are
averaged. LoRA and DoRA are merged into the weights that they adapt. FOLDER
then holds the weights as safetensors, config.json with the names of the
labels, and the tokenizer, for
AutoModelForSequenceClassification.from_pretrained("FOLDER"), or model=FOLDER
to train it further; merged_from.json says which rounds it was made from. It is
written as a whole or not at all.

CHECKPOINT is one checkpoint (checkpoints/job/round-000012), a job's folder of
checkpoints (the newest whole one is taken), the s3:// or gs:// address of
either, or a tracked run (runs/7, or mongo:7 of the database that .env names).
"""

import argparse
import math
import signal
import sys
from pathlib import Path
from typing import get_args

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # The script also works where the package is not installed.

from scaling_fl.commands.arguments import client  # noqa: E402
from scaling_fl.config.types import CodecName  # noqa: E402

CODECS = [name for name in get_args(CodecName) if name != "none"]

_EPILOG = """\
examples:
  scripts/merge_adapter.py runs/7 --out models/news
  scripts/merge_adapter.py checkpoints/a checkpoints/b --weights 2,1 \\
      --out models/both --zip
  scripts/merge_adapter.py checkpoints/a --quantize nf4 --out models/news-nf4
  scripts/merge_adapter.py checkpoints/a --adapter --out adapters/news
  scripts/merge_adapter.py runs/7 --adapter --each --out adapters/news

Exit code: 0 when written, 1 when that failed, 2 on misuse."""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/merge_adapter.py",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("checkpoints", nargs="+", metavar="CHECKPOINT", help="what to load, see above")
    add("--out", type=folder, required=True, metavar="FOLDER", help="a new or empty folder")
    add(
        "--weights",
        type=weights,
        metavar="W,W",
        help="weights of the checkpoints in their mean, such as 2,1 (default: all alike)",
    )
    add(
        "--client",
        type=client,
        metavar="N",
        help="whose model to write, where each client keeps a part of it",
    )
    add(
        "--node",
        metavar="FOLDER",
        help="memory/JOB on the node of that client, if the client was on another machine",
    )
    add(
        "--quantize",
        metavar="CODEC",
        choices=CODECS,
        help="first send every checkpoint, and their mean, through the payload of this codec: "
        + ", ".join(CODECS),
    )
    add(
        "--adapter",
        action="store_true",
        help="write the adapter, the head and what else the base model lacks, for "
        "peft.PeftModel.from_pretrained(base, FOLDER), instead of merging; FOLDER/README.md has "
        "the code",
    )
    add(
        "--each",
        action="store_true",
        help="write every checkpoint that is kept (save_every, keep_last), as FOLDER/round-...",
    )
    add("--zip", action="store_true", help="write FOLDER.zip as well")
    add(
        "--model",
        metavar="MODEL",
        help="where the base model is now; its frozen weights must be those of the run",
    )
    return parser


def folder(text: str) -> Path:
    """Read the path of a folder on this machine."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"must be a folder on this machine, got {text}")
    return Path(text).expanduser().absolute()


def weights(text: str) -> list[float]:
    """Read positive numbers with commas between them."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number < math.inf for number in numbers):
        raise argparse.ArgumentTypeError(f"must be positive numbers such as 2,1, got {text}")
    return numbers


if __name__ == "__main__":
    # Ctrl-C during the imports ends the command without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    options = parser().parse_args()
    # Not above: this takes seconds, which nobody who asks for help or mistypes should wait for.
    from scaling_fl.commands.export import main

    sys.exit(main(vars(options)))
