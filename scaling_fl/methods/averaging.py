"""The weighted mean of a few vectors, such as the states of several checkpoints."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


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
