"""A merge: a function of the clients' updates and of the round, which returns one update.

A merge reads the updates in one pass or several. Each pass is an exact sum over clients, so the
order of the clients and the number of workers do not change a bit of the result:

    def mean_of_squares() -> Merge:
        def merge(updates: Updates, round: Round) -> Tensor:
            return round.total((u.vector.square(), u.share) for u in updates.once())
        return merge

This example is not a good one: equal clients should be a fixed point of a merge. The laws are in
``conformance.merge_laws``, on which ``scripts/check_merge.py`` tries a merge of the user.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from torch import Generator, Tensor

from scaling_fl.core.linears import Linear
from scaling_fl.methods.pairs import Pair

Term = tuple[Tensor, float]
"""A vector (fp32, the global vector's size) and its share of a sum, in [0, 1]."""
SentTerm = tuple[Tensor, float, Tensor | None]
"""A term, and the coordinates that count: their indices, or one bool for each; None: all."""


class Update(NamedTuple):
    """The update of one client, as it arrived at the server."""

    client: int
    tier: int
    share: float
    """The client's share in the mean; the shares of a round add up to at most 1."""
    vector: Tensor
    """fp32 of the global vector's size, 0 where the client sent nothing. A merge may write to the
    vector; the next update overwrites it."""
    sent: Tensor | None
    """The coordinates that the client sent, ascending; None: all."""
    extras: Mapping[str, Tensor] = {}
    """The client's other payloads, by the names in the merge's row; fp32."""


class Updates(Protocol):
    """The updates of the clients that this worker runs, in any order."""

    def once(self) -> Iterator[Update]:
        """Yield the updates while the clients train. For a merge of one pass: keeps nothing."""

    def again(self) -> Iterator[Update]:
        """Yield the updates. For a merge of several passes: keeps the payloads in memory."""

    def together(self) -> Iterator[Sequence[Update]]:
        """Yield the updates as ``again`` does, those whose vectors are in memory at once together.

        A merge must not write to the vectors. In the first pass each update comes alone.
        """


class Round(Protocol):
    """What a merge may ask of all workers; all workers make the same calls in the same order."""

    @property
    def shares(self) -> Mapping[int, float]:
        """The clients whose updates are merged, ascending, with shares that add up to 1.

        Waits until all have trained.
        """

    @property
    def start(self) -> Tensor:
        """The global vector before the round; not to be written to."""

    @property
    def pairs(self) -> Sequence[Pair]:
        """The pairs of the adapter."""

    @property
    def tensors(self) -> Sequence[slice]:
        """The places of the parameters in the vector, in its order."""

    @property
    def linears(self) -> Sequence[Linear]:
        """The linear layers whose weights are trained."""

    def trained(self, update: Update) -> Tensor:
        """Return ``start`` + the update: new memory, 0 where the client holds nothing.

        The client came there, but for what its download left out of ``start`` or rounded: that did
        not move.
        """

    def factors(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """Return A (clients, rank, in) and B (clients, out, rank) of what is ``trained``.

        After a pass over the updates; fp32, 0 where a client holds nothing, in the order of the
        clients, and the same on every worker.
        """

    def spread(self, jobs: Iterable[Callable[[], Tensor]]) -> list[Tensor]:
        """Run each job on one worker, and return all results (fp32, 1-D) on every worker.

        So the machines of a run need not compute alike to the bit. Every worker takes all jobs in
        turn, as many at a time as there are workers; so a job may hold what was gathered for it.
        """

    def move_base(self, factors: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Move the frozen weights that each pair is added to, by left @ right as by a product B A.

        ``factors`` are left (out x k) and right (k x in) of every pair, fp32, equal on all workers.
        """

    def random(self, client: int) -> Generator:
        """Return the randomness of a client's update: a function of seed, round and client."""

    def total(self, terms: Iterable[Term]) -> Tensor:
        """Return sum(share * vector) over the terms of all workers: exact, rounded once to fp32.

        When the round leaves clients out, the sum is divided by the share of all other clients.
        """

    def mean_over_senders(self, terms: Iterable[SentTerm]) -> Tensor:
        """Return sum(share * vector) / sum(share), coordinate by coordinate; 0 / 0 is 0.

        At each coordinate, the lower sum is over the terms that count there. The vectors must be 0
        at the coordinates that do not count.
        """

    def mean_of_elected(self, terms: Iterable[Term]) -> Tensor:
        """Return the mean of the values of the elected sign, coordinate by coordinate; 0 / 0 is 0.

        The elected sign is that of the ``total``. The mean is sum(share * vector) / sum(share) over
        the terms of that sign. One pass over the terms is enough.
        """

    def count_by_block(self, updates: Updates, marks: Callable[[Update, slice], Tensor]) -> Tensor:
        """Count at each coordinate the clients whose update is marked there (fp32).

        ``marks`` are made of (update, place): one bool for each coordinate of the place.
        """

    def gather(self, rows: Iterable[tuple[int, Tensor]]) -> Tensor:
        """Stack one small fp32 tensor of each client, in the order of the clients.

        ``rows`` are (client, tensor) of this worker's clients; all tensors have the same shape.
        Returns the tensor (clients, *shape) on every worker.
        """

    def columns(self, updates: Updates, size: int) -> Iterator[Tensor]:
        """Yield the clients' values of ``size`` coordinates at a time: (clients, size).

        The last tensor may have fewer columns. Until then, the decoded updates of this worker's
        clients are in memory.
        """

    def of_size(self, size: int, tensors: Sequence[slice] = ()) -> "Round":
        """Return the same round for terms of ``size`` values, such as matrices of statistics.

        ``tensors`` are the tensors in these values, if a merge of single tensors is to see them.

        Its sums have memory of their own, which all rounds of that size share.
        """

    def report(self, name: str, value: float) -> None:
        """Report a metric of the merge, such as ``update.drift``."""

    def drift_from(self, mean: Tensor) -> float:
        """Return sqrt(sum(share_k * |u_k - mean|**2)), a measure of how much clients disagree."""


Merge = Callable[[Updates, Round], Tensor]
"""Returns the merged update: fp32 of the global vector's size, the same on every worker."""
