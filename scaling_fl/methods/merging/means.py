"""Means of updates: over all clients of a round, or coordinate by coordinate over the senders."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from scaling_fl.methods.merging.merge import Merge, Round, Updates


def mean() -> Merge:
    """Return sum(share_k * u_k), the mean. Source: arXiv 1602.05629, algorithm 1."""

    def merge(updates: Updates, round: Round) -> Tensor:
        update = round.total((u.vector, u.share) for u in updates.once())
        round.report("update.drift", round.drift_from(update))
        return update

    return merge


def mean_of_senders() -> Merge:
    """Average each coordinate over the clients that sent it; the mean is 0 if no client did.

    Source: arXiv 2010.01264 (HeteroFL), equation 2, by coordinate.
    """

    def merge(updates: Updates, round: Round) -> Tensor:
        return round.mean_over_senders((u.vector, u.share, u.sent) for u in updates.once())

    return merge


def task_arithmetic(scale: float) -> Merge:
    """Return scale * sum(share_k * u_k). Source: arXiv 2212.04089, section 2, with a mean."""

    def merge(updates: Updates, round: Round) -> Tensor:
        return round.total((u.vector, u.share) for u in updates.once()).mul_(scale)

    return merge


def average(vectors: Iterable[Tensor], weights: Sequence[float]) -> Tensor:
    """Return sum(w_i * v_i) / sum(w_i) for fp32 vectors of one size and positive weights.

    The sum is in fp64 and is rounded once to fp32, so the mean of equal vectors is that vector, bit
    for bit.
    """
    pairs = zip(vectors, weights, strict=True)
    first, weight = next(pairs)
    total = first.double() * weight
    for vector, weight in pairs:
        total.add_(vector.double(), alpha=weight)
    return total.div_(sum(weights)).to(torch.float32)
