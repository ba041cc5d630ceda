"""Merges that let the clients vote for the sign of every coordinate."""

from collections.abc import Iterator

import torch
from torch import Tensor

from scaling_fl.methods.merging.merge import Merge, Round, SentTerm, Updates
from scaling_fl.methods.wire.sparsity import count_kept, top_k


def ties(density: float) -> Merge:
    """Trim, elect a sign by weight, average those that agree over the weight that agrees.

    Trimming keeps the share ``density`` of the largest coordinates of the whole update.
    Source: arXiv 2306.01708 (TIES-Merging), section 4.
    """

    def merge(updates: Updates, round: Round) -> Tensor:
        elected = round.total((_trim(u.vector, density), u.share) for u in updates.again()).sign()

        def agreeing() -> Iterator[SentTerm]:
            for u in updates.again():
                trimmed = _trim(u.vector, density)
                agrees = trimmed.sign() == elected
                yield trimmed.mul_(agrees), u.share, agrees

        return round.mean_over_senders(agreeing())

    return merge


def _trim(vector: Tensor, density: float) -> Tensor:
    kept = top_k(vector.cpu(), count_kept(vector.numel(), density)).to(vector.device)
    trimmed = torch.zeros_like(vector)
    trimmed[kept] = vector[kept]
    return trimmed
