"""Merges that let the clients vote for the sign of every coordinate."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from scaling_fl.methods.merging.merge import Merge, Round, Update, Updates
from scaling_fl.methods.wire.sparsity import count_kept, mark_largest

TrimBy = Literal["vector", "tensor"]
"""Whose largest coordinates are kept: the vector's, or each tensor's."""


def ties(density: float, trim_by: TrimBy = "vector") -> Merge:
    """Trim the updates, elect a sign for each coordinate, and average the values of that sign.

    Trimming keeps the largest coordinates of an update, a share of ``density``. The elected sign is
    that of sum(share_k * trimmed_k). The mean divides by the shares of the clients that agree.
    Source: arXiv 2306.01708 (TIES-Merging), section 4.
    """
    return by_elected_signs(lambda u, round: largest(u.vector, round, density, trim_by))


def by_elected_signs(keep: Callable[[Update, Round], Tensor]) -> Merge:
    """Merge as ``ties`` does, from the coordinates that ``keep`` marks (bool) of each update."""

    def merge(updates: Updates, round: Round) -> Tensor:
        kept = {u.client: keep(u, round) for group in updates.together() for u in group}
        signs = round.total_by_block(
            updates, lambda u, place: (u.vector[place], u.share, kept[u.client][place])
        ).sign_()

        def agreeing(u: Update, place: slice) -> tuple[Tensor, float, Tensor]:
            values = u.vector[place]
            return values, u.share, _agree(values, signs[place], kept[u.client][place])

        return round.mean_over_senders_by_block(updates, agreeing)

    return merge


def _agree(values: Tensor, signs: Tensor, kept: Tensor) -> Tensor:
    """Mark the values that are kept and of the elected sign; none of them where the sign is 0."""
    if values.device.type != "cpu":
        return (values * signs > 0).logical_and_(kept)
    agrees = values.numpy() * signs.numpy() > 0  # numpy takes half of torch's time
    agrees &= kept.numpy()
    return torch.from_numpy(agrees)


def largest(vector: Tensor, round: Round, density: float, trim_by: TrimBy) -> Tensor:
    """Mark the largest coordinates of a vector or of each tensor, a share of ``density`` (bool)."""
    places = round.tensors if trim_by == "tensor" else [slice(0, vector.numel())]
    values, marks = vector.cpu(), torch.empty(vector.numel(), dtype=torch.bool)
    for place in places:
        part = values[place]
        marks[place] = mark_largest(part, count_kept(part.numel(), density))
    return marks.to(vector.device)


def apply_marks(vector: Tensor, marks: Tensor, out: Tensor) -> Tensor:
    """Write the vector to ``out``, with 0 where it is not marked (bool)."""
    if vector.device.type == "cpu":
        np.multiply(vector.numpy(), marks.numpy(), out=out.numpy())  # twice as fast as torch
        return out
    return torch.mul(vector, marks, out=out)
