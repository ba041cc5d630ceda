"""Where the part of a federation that runs on a node has its data and its memory."""

from dataclasses import dataclass
from pathlib import Path

MEMORY = "memory"
"""What the folder is named that has the memory of each job, below the folder of a node."""


@dataclass(frozen=True)
class Place:
    """A node's number, the folder of its own, and its own data, if it has any."""

    partition: int
    folder: Path
    train_path: str | None = None
    test_path: str | None = None
    """Only with a ``train_path``."""
    only_sums: bool = False
    """Whether the node's owner lets a server see its updates in sums alone."""
