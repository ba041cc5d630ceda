"""The frozen base of an adapter, which some merges move: what the server remembers of it and sends.

A client holds the base of its last turn. If that was the round before, the client needs only the
last move, which is sent as factors where they are smaller; otherwise it needs all moves so far.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from scaling_fl.core.state import Tensors
from scaling_fl.methods.pairs import Pair
from scaling_fl.methods.wire.direction import PLAIN, Payload

FP32, INT64 = 4, 8
MOVED = "base.moved"
"""The key of the sum of all moves: an (out x in) matrix of each pair, flat (see ``Move``)."""
FACTORS = "base.factors"
"""The key of the factors of the last round's move, where they are smaller than the matrices."""
HOLDERS = "base.holders"
"""The key of the clients that need no more than these factors (without them: nothing), because they
had their turn in the last round."""


class Move(NamedTuple):
    """How a round moves the base: left @ right of every pair, times the adapter's scale.

    Both are fp32 and 1-D, and the pairs follow each other as in the vector.
    """

    dense: Tensor
    factors: Tensor
    """left (out x k) and right (k x in) of the first pair, then of the next."""


def product(left: Tensor, right: Tensor) -> Tensor:
    """Return left @ right (fp32 factors), summed in fp64: fp32 and 1-D."""
    return (left.double() @ right.double()).float().flatten()


def base_after(memory: Tensors, move: Move | None, cohort: Collection[int]) -> dict[str, Tensor]:
    """Return the server's memory after a round of ``cohort`` that made a move, or none."""
    after = {name: value for name, value in memory.items() if name not in (FACTORS, HOLDERS)}
    holders = sorted(cohort)
    if move:
        after[MOVED] = move.dense + after[MOVED] if MOVED in after else move.dense
        if move.factors.numel() < move.dense.numel():
            after[FACTORS] = move.factors
        else:
            holders = []
    if MOVED in after:
        after[HOLDERS] = torch.tensor(holders, dtype=torch.int64, device=after[MOVED].device)
    return after


def send_base(memory: Tensors, client: int) -> Payload | None:
    """Make the payload that a client needs to have the base; None: nothing moved since its turn."""
    moved = memory.get(MOVED)
    if moved is None:
        return None
    if client not in memory[HOLDERS].tolist():
        return PLAIN.send(moved, moved.numel())
    factors = memory.get(FACTORS)
    return None if factors is None else PLAIN.send(factors, factors.numel())


@dataclass(frozen=True)
class BaseSizes:
    """Predicts what the base costs a run of which every round with clients moves it."""

    pairs: Sequence[Pair]
    ranks: Sequence[int]
    """The number of components of a pair that each client holds."""
    of_server: int
    """The number of components of a move that are of no client."""

    @property
    def moved(self) -> int:
        """Count the coordinates of ``MOVED``."""
        return sum(pair.shape[0] * pair.shape[1] for pair in self.pairs)

    def factors(self, cohort: Sequence[int]) -> int:
        """Count the coordinates of the factors of a move by ``cohort``."""
        rank = sum(self.ranks[client] for client in cohort) + self.of_server * bool(cohort)
        return rank * sum(sum(pair.shape) for pair in self.pairs)

    def download_bytes(self, cohorts: Sequence[Sequence[int]]) -> list[int]:
        """Count the bytes of ``send_base`` in every round, all clients together."""
        found, has_moved = [], False
        for before, cohort in pairwise([(), *cohorts]):
            has_moved = has_moved or bool(before)
            last = min(self.moved, self.factors(before))
            sizes = [last if client in before else self.moved for client in cohort]
            found.append(sum(PLAIN.num_bytes(size, size) for size in sizes) * has_moved)
        return found

    def memory_bytes(self, cohorts: Sequence[Sequence[int]]) -> int:
        """Count the bytes of what the server remembers after the last round."""
        if not any(cohorts):
            return 0
        last = cohorts[-1]
        if self.factors(last) >= self.moved:
            return FP32 * self.moved
        return FP32 * (self.moved + self.factors(last)) + INT64 * len(last)
