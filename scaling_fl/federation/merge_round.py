"""The ``Round`` of a merge (see ``methods.merging.merge``), by exact sums over all workers."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice

import torch
from torch import Tensor

from scaling_fl.core.election import Election
from scaling_fl.core.exact_sum import ExactSum
from scaling_fl.core.exchange import Exchange
from scaling_fl.core.linears import Linear
from scaling_fl.core.records import ClientReport
from scaling_fl.core.seeding import derive
from scaling_fl.federation.base import Move, product
from scaling_fl.federation.sealed import SealedSum
from scaling_fl.methods.merging.merge import SentTerm, Term, Update, Updates
from scaling_fl.methods.pairs import Pair

_BLOCK = 1 << 16
"""Coordinates whose sums, and the values of one client, stay in a core's cache."""
Total = Callable[[Iterable[Term]], ExactSum]
"""The exact sum of the terms of all workers."""


@dataclass(frozen=True)
class Cohort:
    """The clients of a round after all of them have trained, and their shares in the mean."""

    reports: list[ClientReport]
    """The reports of the clients of all workers, in the order of the clients."""
    shares: Mapping[int, float]
    divisor: float
    """Sums are divided by (sum of the shares of usable clients) / (sum of all shares)."""
    memories: Mapping[int, Mapping[str, list[int]]]
    """The shapes of the tensors that each client must remember, by name."""

    @property
    def usable(self) -> list[ClientReport]:
        return [report for report in self.reports if report.failure is None]


class ExactSums:
    """The two sums that a merge may need at once, in memory that all rounds use."""

    def __init__(self, exchange: Exchange, size: int, device: torch.device) -> None:
        self._exchange, self._size, self._device = exchange, size, device
        self._others: dict[int, ExactSums] = {}
        self.values = self._make()

    def of_size(self, size: int) -> "ExactSums":
        """Return sums of another size, in memory of their own that all rounds use as well."""
        if size not in self._others:
            self._others[size] = ExactSums(self._exchange, size, self._device)
        return self._others[size]

    @cached_property
    def shares(self) -> ExactSum:
        """The sum of the shares at each coordinate; made at its first use."""
        return self._make()

    def _make(self) -> ExactSum:
        integers = self._exchange.zeros(self._size, self._device)
        return ExactSum(self._size, self._device, integers)


class MergeRound:
    """The round of a merge.

    ``gather_cohort`` waits until the clients of all workers have trained. ``scratch`` is a buffer
    of the vector's size that is free after that; the first result is written there. ``wrap``
    returns another function to sum terms, as privacy needs. ``seed`` is that of the round,
    ``start`` the global vector before the round, and ``trained`` makes what ``Round`` describes.
    ``factors`` are A and B of each pair (flat, one after the other), as this worker's clients left
    them. ``sealed`` has the sum of the updates that are not here.
    """

    def __init__(
        self,
        exchange: Exchange,
        sums: ExactSums,
        scratch: Tensor,
        gather_cohort: Callable[[], Cohort],
        wrap: Callable[[Total], Total] = lambda total: total,
        *,
        seed: int,
        start: Tensor,
        pairs: Sequence[Pair],
        tensors: Sequence[slice],
        linears: Sequence[Linear],
        trained: Callable[[Update], Tensor],
        factors: Mapping[int, Sequence[Tensor]],
        sealed: SealedSum | None = None,
    ) -> None:
        self._exchange, self._sums, self._gather_cohort = exchange, sums, gather_cohort
        self._scratch: Tensor | None = scratch
        self._size, self._device = scratch.numel(), scratch.device
        # A wrapped method of its own would be a circle, which keeps the round's state alive.
        self._wrap = wrap
        self._seed, self._sealed = seed, sealed
        self.start, self.pairs, self.tensors, self.linears = start, pairs, tensors, linears
        self.trained, self._factors = trained, factors
        self._cohort: Cohort | None = None
        self.metrics: dict[str, float] = {}
        self.base_move: Move | None = None
        self.moved: Sequence[tuple[Tensor, Tensor]] = ()
        self.waiting_seconds = 0.0
        """The time that this worker waited for the clients of other workers."""

    @property
    def cohort(self) -> Cohort:
        """The clients of all workers; the first call waits until all have trained."""
        if self._cohort is None:
            began = time.perf_counter()
            self._cohort = self._gather_cohort()
            self.waiting_seconds += time.perf_counter() - began
        return self._cohort

    @property
    def shares(self) -> Mapping[int, float]:
        cohort = self.cohort
        return {r.client: cohort.shares[r.client] / cohort.divisor for r in cohort.usable}

    def of_size(self, size: int, tensors: Sequence[slice] = ()) -> "MergeRound":
        other = MergeRound(
            self._exchange,
            self._sums.of_size(size),
            torch.empty(size, device=self._device),
            lambda: self.cohort,
            self._wrap,
            seed=self._seed,
            start=self.start,
            pairs=self.pairs,
            tensors=tensors,
            linears=self.linears,
            trained=self.trained,
            factors=self._factors,
        )
        other.metrics = self.metrics
        return other

    def random(self, client: int) -> torch.Generator:
        return torch.Generator().manual_seed(derive(self._seed, "merge", client))

    def total(self, terms: Iterable[Term]) -> Tensor:
        sums = self._wrap(self._sum_over_workers)(terms)
        return sums.mean(self._result(), self.cohort.divisor)

    def mean_over_senders(self, terms: Iterable[SentTerm]) -> Tensor:
        values, shares = self._sums.values, self._sums.shares
        values.clear()
        shares.clear()
        for vector, share, sent in terms:
            values.add(vector, share)
            shares.add_share(share, sent)
        self._total(values, shares)
        return values.mean_over(self._result(), shares)

    def mean_of_elected(self, terms: Iterable[Term]) -> Tensor:
        values, shares = self._sums.values, self._sums.shares
        election = Election(values, shares)
        for vector, share in terms:
            election.add(vector, share)
        self._total(values, shares)
        election.close()
        self._total(shares)
        return values.mean_over(self._result(), shares)

    def gather(self, rows: Iterable[tuple[int, Tensor]]) -> Tensor:
        mine = dict(rows)
        shapes = self._exchange.gather([{"shape": list(row.shape)} for row in mine.values()])
        shape = next((row["shape"] for row in shapes), [0])
        return self._stack(mine, shape)

    def factors(self, pair: Pair) -> tuple[Tensor, Tensor]:
        number, (out, num_in) = self.pairs.index(pair), pair.shape
        rows = self._stack(
            {client: each[number] for client, each in self._factors.items()},
            [pair.rank * (out + num_in)],
        )
        a, b = rows.split([pair.rank * num_in, out * pair.rank], 1)
        return a.reshape(-1, pair.rank, num_in), b.reshape(-1, out, pair.rank)

    def columns(self, updates: Updates, size: int) -> Iterator[Tensor]:
        mine = {update.client: update.vector.clone() for update in updates.again()}
        for offset in range(0, self._size, size):
            rows = {client: vector[offset : offset + size] for client, vector in mine.items()}
            yield self._stack(rows, [min(size, self._size - offset)])

    def spread(self, jobs: Iterable[Callable[[], Tensor]]) -> list[Tensor]:
        rank, size = self._exchange.rank, self._exchange.size
        results: dict[int, Tensor] = {}
        rest = enumerate(jobs)
        while group := list(islice(rest, size)):
            results |= {number: job() for number, job in group[rank : rank + 1]}
        sizes = {
            row["job"]: row["size"]
            for row in self._exchange.gather(
                [{"job": number, "size": result.numel()} for number, result in results.items()]
            )
        }
        bits = torch.zeros(sum(sizes.values()), dtype=torch.int64, device=self._device)
        parts = dict(zip(sorted(sizes), bits.split([sizes[n] for n in sorted(sizes)]), strict=True))
        for number, result in results.items():
            parts[number].copy_(result.view(torch.int32))
        numbers = self._exchange.total(bits).to(torch.int32).view(torch.float32)
        return list(numbers.split([sizes[number] for number in sorted(sizes)]))

    def move_base(self, factors: Sequence[tuple[Tensor, Tensor]]) -> None:
        dense = self.spread(partial(product, *each) for each in factors)
        parts = [part.flatten() for each in factors for part in each]
        self.moved = factors
        self.base_move = Move(torch.cat(dense), torch.cat(parts))

    def report(self, name: str, value: float) -> None:
        self.metrics[name] = value

    def drift_from(self, mean: Tensor) -> float:
        # sum(p_k * |u_k - m|**2) = sum(p_k * |u_k|**2) - |m|**2, so the updates need not be kept.
        shares, divisor = self.cohort.shares, self.cohort.divisor
        squares = math.fsum(
            shares[r.client] / divisor * r.update_norm**2 for r in self.cohort.usable
        )
        return math.sqrt(max(squares - float(torch.linalg.vector_norm(mean)) ** 2, 0.0))

    def _sum_over_workers(self, terms: Iterable[Term]) -> ExactSum:
        sums = self._sums.values
        sums.clear()
        for vector, share in terms:
            sums.add(vector, share)
        if self._sealed:
            self._sealed.add_to(sums.integers)
        self._total(sums)
        return sums

    def count_by_block(self, updates: Updates, marks: Callable[[Update, slice], Tensor]) -> Tensor:
        sums = self._sums.values
        sums.clear()
        for group in updates.together():
            for start in range(0, self._size, _BLOCK):
                place = slice(start, min(start + _BLOCK, self._size))
                for first in range(0, len(group), 255):  # a byte counts to 255
                    some = (marks(u, place).view(torch.uint8) for u in group[first : first + 255])
                    sums.integers[place].add_(sum(some))
        self._total(sums)
        return self._result().copy_(sums.integers)

    def _total(self, *sums: ExactSum) -> None:
        """Wait until all clients have trained, and add up the sums of all workers."""
        self._wait_for_all()
        for each in sums:
            self._exchange.total(each.integers)

    def _wait_for_all(self) -> Cohort:
        return self.cohort

    def _stack(self, mine: Mapping[int, Tensor], shape: list[int]) -> Tensor:
        """Stack the rows of all clients: each worker adds the bits of its rows to zeros."""
        clients = list(self.shares)
        bits = torch.zeros(len(clients), *shape, dtype=torch.int64, device=self._device)
        for row, client in enumerate(clients):
            if client in mine:
                bits[row] = mine[client].contiguous().view(torch.int32)
        return self._exchange.total(bits).to(torch.int32).view(torch.float32)

    def _result(self) -> Tensor:
        """Return memory for a result: at first the scratch buffer, then new memory."""
        result, self._scratch = self._scratch, None
        return torch.empty(self._size, device=self._device) if result is None else result
