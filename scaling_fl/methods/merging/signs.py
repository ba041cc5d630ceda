"""Merges that let the clients vote for the sign of every coordinate."""

from typing import Literal

from torch import Tensor

from scaling_fl.methods.merging.merge import Merge, Round, Updates
from scaling_fl.methods.wire.sparsity import count_kept, mark_largest

TrimBy = Literal["vector", "tensor"]
"""Whose largest coordinates are kept: the vector's, or each tensor's."""


def ties(density: float, trim_by: TrimBy = "vector") -> Merge:
    """Trim the updates, elect a sign for each coordinate, and average the values of that sign.

    Trimming keeps the largest coordinates of an update, a share of ``density``. The elected sign is
    that of sum(share_k * trimmed_k). The mean divides by the shares of the clients that agree.
    Source: arXiv 2306.01708 (TIES-Merging), section 4.
    """

    def merge(updates: Updates, round: Round) -> Tensor:
        return round.mean_of_elected(
            (trim(u.vector, round, density, trim_by), u.share) for u in updates.once()
        )

    return merge


def trim(vector: Tensor, round: Round, density: float, trim_by: TrimBy) -> Tensor:
    """Set all to 0 but the largest coordinates of the vector or of each tensor, in place.

    A share of ``density`` is kept.
    """
    places = round.tensors if trim_by == "tensor" else [slice(0, vector.numel())]
    for part in (vector[place] for place in places):
        marks = mark_largest(part.cpu(), count_kept(part.numel(), density))
        apply_marks(part, marks.to(part.device))
    return vector


def apply_marks(vector: Tensor, marks: Tensor) -> Tensor:
    """Set the vector to 0 where it is not marked (bool), in place."""
    if vector.device.type == "cpu":
        values = vector.numpy()
        values *= marks.numpy()  # twice as fast as torch
        return vector
    return vector.mul_(marks)
