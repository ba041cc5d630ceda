"""The queue of a sweep: its runs, of which several workers and machines each take one at a time.

A worker has the run that it took until it ends it, gives it back or dies. Nobody has to tidy up
after one that died: its claim is free at once on the same machine, and on others when its last sign
of life is old.
"""

from collections.abc import Container, Sequence
from typing import Protocol

from scaling_fl.sweeps.entry import Entry, Outcome


class Lease(Protocol):
    """A run that this process has taken."""

    entry: Entry

    @property
    def is_lost(self) -> bool:
        """Whether another worker took the run over, because this one seemed to be dead."""

    @property
    def is_pruned(self) -> bool:
        """Whether the run is not worth its next rounds."""

    def begin(self, last_round: int) -> bool:
        """Note that the run begins or goes on.

        False where it may not: it has died too often, and is failed; or another worker has it.
        """

    def end(
        self, outcome: Outcome, *, error: str = "", run: str = "", is_final: bool = False
    ) -> None:
        """Note what the run has come to, and let it go; a final failure is not tried again."""

    def release(self) -> None:
        """Give an interrupted run back: whoever comes next goes on with it."""


class Queue(Protocol):
    """The runs of a sweep, wherever they are kept."""

    where: str
    """Its place, as users know it."""

    def add(self, entries: Sequence[Entry]) -> int:
        """Add runs, and return how many are new; those that are there stay as they are."""

    def take(self, keys: Container[str] | None = None) -> Lease | None:
        """Take the first run that waits or whose worker died; None if there is none now.

        Of the runs of ``keys`` alone, if they are given.
        """

    def entries(self) -> list[Entry]:
        """List all runs in the order they were added; one is running while its worker lives."""

    def retry(self, key: str) -> None:
        """Have a run wait again that failed or was pruned; no other one."""

    def prune(self, key: str) -> None:
        """Note that a run is not worth its next rounds; its worker ends it."""
