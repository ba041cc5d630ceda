"""Where the part of a federation that runs on a node has its data and its memory."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """A node's number, the folder of its own, and its own training data, if it has any."""

    partition: int
    folder: Path
    train_path: str | None = None
