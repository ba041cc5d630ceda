"""What a merge is: a function of the clients' updates and of a round, which returns one update.

A merge looks at the updates in one pass or more. A pass is a sum over clients, so that neither
their order nor the number of workers changes a bit of what it returns:

    def mean_of_squares() -> Merge:
        def merge(updates: Updates, round: Round) -> Tensor:
            return round.total((u.vector.square(), u.share) for u in updates.once())
        return merge
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from torch import Tensor

Term = tuple[Tensor, float]
"""A vector (fp32, the global vector's size) and its share of a sum, in [0, 1]."""
SentTerm = tuple[Tensor, float, Tensor | None]
"""A term, and which coordinates count: their indices or a bool of each; None: all."""


class Update(NamedTuple):
    """What arrived of one client that was not left out."""

    client: int
    share: float
    """The client's weight; those of all clients of the round add up to 1, or to less."""
    vector: Tensor
    """fp32 of the global vector's size, 0 where nothing was sent. It is valid, and may be written
    to, until the next update is asked for."""
    sent: Tensor | None
    """The coordinates that were sent, ascending; None: all."""
    extras: Mapping[str, Tensor] = {}
    """What the merge has clients send beside their updates, by name; each as long as ``vector``."""


class Updates(Protocol):
    """The updates of the clients that this worker runs, in any order."""

    def once(self) -> Iterator[Update]:
        """Yield the updates while the clients train; nothing is kept. For a single pass."""

    def again(self) -> Iterator[Update]:
        """Yield the updates, whose payloads are kept, so that it can be called several times."""


class Round(Protocol):
    """What a merge may ask of all workers; every worker asks the same in the same order."""

    def total(self, terms: Iterable[Term]) -> Tensor:
        """Sum share * vector over the terms of all workers, exactly, rounded once to fp32.

        The shares of clients that were left out are dealt to the others in proportion.
        """

    def mean_over_senders(self, terms: Iterable[SentTerm]) -> Tensor:
        """Divide the sum of share * vector by the sum of the shares that count there; 0 / 0 is 0.

        The vectors must be 0 where they do not count.
        """

    def gather(self, rows: Iterable[tuple[int, Tensor]]) -> Tensor:
        """Give every worker the fp32 tensors of all clients (client, tensor of one shape).

        Returns them stacked, in the order of the clients: (clients, *shape). For small tensors.
        """

    def columns(self, updates: Updates, size: int) -> Iterator[Tensor]:
        """Yield the clients' values of ``size`` coordinates at a time: (clients, size) or fewer.

        The decoded updates of this worker's clients are in memory meanwhile.
        """

    def report(self, name: str, value: float) -> None:
        """Report a metric of the merge, such as ``update.drift``."""

    def drift_from(self, mean: Tensor) -> float:
        """Return the root of the weighted mean squared distance of the updates to their mean."""


Merge = Callable[[Updates, Round], Tensor]
"""Returns the merged update: fp32 of the global vector's size, the same on every worker."""
