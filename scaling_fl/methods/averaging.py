"""The weighted mean of a few whole vectors, such as the states of several checkpoints."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def average(vectors: Iterable[Tensor], weights: Sequence[float]) -> Tensor:
    """Average fp32 vectors of one size, by positive weights of any sum, into a new fp32 vector.

    Sums are in fp64 and rounded once, so that equal vectors are their own mean, bit for bit.
    """
    pairs = zip(vectors, weights, strict=True)
    first, weight = next(pairs)
    total = first.double() * weight
    for vector, weight in pairs:
        total.add_(vector.double(), alpha=weight)
    return total.div_(sum(weights)).to(torch.float32)
