"""What a user may write: the examples that the documentation gives, as one module."""

import inspect
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

from scaling_fl.learning import task as task_module
from scaling_fl.learning.tasks.classification import family
from scaling_fl.methods import partitioning
from scaling_fl.methods.merging import merge as merge_module
from scaling_fl.methods.wire import codecs

HEADER = """
import sys
from pathlib import Path

import numpy as np
import torch

from scaling_fl.learning.task import Statistic
from scaling_fl.learning.tasks.classification.family import classification
from scaling_fl.learning.tables.sources import file_digest
from scaling_fl.learning.text.labelled import Labelled
from scaling_fl.methods.merging.merge import Merge, Round, Updates
from scaling_fl.methods.wire.codecs import Codec
from torch import Tensor
"""


def documented(module: ModuleType, begin: str) -> str:
    """Return the example of a docstring that begins with ``begin``."""
    lines = inspect.getsource(module).splitlines()
    first = next(i for i, line in enumerate(lines) if line.strip().startswith(begin))
    indent = len(lines[first]) - len(lines[first].lstrip())
    block = []
    for line in lines[first:]:
        if line.strip() and len(line) - len(line.lstrip()) < indent:
            break
        block.append(line)
    text = textwrap.dedent("\n".join(block))
    return text.encode().decode("unicode_escape") if "\\\\" in text else text


EXAMPLES = "\n\n".join(
    [
        HEADER,
        documented(merge_module, "def mean_of_squares"),
        documented(codecs, "def encode(values):"),
        documented(partitioning, "def one_large"),
        documented(task_module, "def balanced_accuracy"),
        documented(task_module, "def largest_loss"),
        documented(family, 'LABELS = ("ham"'),
    ]
)
DATA = {"train_path": "messages.tsv", "test_path": "messages.tsv"}
OWN: dict[str, Any] = {
    "task_name": "own_things:messages",
    "merge": {"method": "own_things:mean_of_squares"},
    "upload": {"codec": "own_things:signs"},
    "partition": {"kind": "own_things:one_large"},
    "metrics": ["own_things:balanced_accuracy"],
    "model": "tiny",
    "num_clients": 3,
    **DATA,
}


def write_messages(path: Path, num_rows: int) -> None:
    """Write labelled messages, as the task of the examples reads them."""
    rows = [("ham\tsee you", "spam\tbuy now")[row % 2] for row in range(num_rows)]
    path.write_text("\n".join(rows))
