"""Merges that let the clients vote for the sign of every coordinate."""

from collections.abc import Iterator

import torch
from torch import Tensor

from scaling_fl.methods.merging.merge import Merge, Round, SentTerm, Updates
from scaling_fl.methods.wire.sparsity import count_kept, top_k


def ties(density: float) -> Merge:
    """Trim the updates, elect a sign for each coordinate, and average the values of that sign.

    Trimming keeps the largest coordinates of an update, a share of ``density``. The elected sign is
    that of sum(share_k * trimmed_k). The mean divides by the shares of the clients that agree.
    Source: arXiv 2306.01708 (TIES-Merging), section 4.
    """

    def merge(updates: Updates, round: Round) -> Tensor:
        elected = round.total((trim(u.vector, density), u.share) for u in updates.again()).sign()

        def agreeing() -> Iterator[SentTerm]:
            for u in updates.again():
                trimmed = trim(u.vector, density)
                agrees = trimmed.sign() == elected
                yield trimmed.mul_(agrees), u.share, agrees

        return round.mean_over_senders(agreeing())

    return merge


def trim(vector: Tensor, density: float) -> Tensor:
    """Keep the largest coordinates of an update, a share of ``density``; the others are 0."""
    kept = top_k(vector.cpu(), count_kept(vector.numel(), density)).to(vector.device)
    trimmed = torch.zeros_like(vector)
    trimmed[kept] = vector[kept]
    return trimmed
