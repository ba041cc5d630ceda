"""Conversations: who said what, and whose each conversation is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ROLES = ("system", "user", "assistant")


class Turn(NamedTuple):
    """What one side says; ``role`` is one of ``ROLES``."""

    role: str
    content: str


@dataclass(frozen=True)
class Conversations:
    """Rows of a table as conversations, each of which ends with a turn of the assistant."""

    turns: Sequence[tuple[Turn, ...]]
    owners: NDArray[np.int64] | None = None
    """The client that each conversation belongs to, where the data says so; -1: none of those."""
    groups: NDArray[np.int64] | None = None
    """The group that each conversation belongs to, where a column of groups is named."""

    def __len__(self) -> int:
        return len(self.turns)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Return the class of each conversation: there is one."""
        return np.zeros(len(self), dtype=np.int64)

    def take(self, indices: NDArray[np.int64]) -> "Conversations":
        return Conversations(
            [self.turns[index] for index in indices],
            None if self.owners is None else self.owners[indices],
            None if self.groups is None else self.groups[indices],
        )
