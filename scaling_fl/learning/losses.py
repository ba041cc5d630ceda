"""Losses as integers, which add up over batches and workers exactly, in any order."""

import torch
from torch import Tensor

_UNIT = 2.0**32
_LARGEST = 2.0**10
"""Losses are summed in units of 2**-32; almost 2**21 of the largest loss fit 63 bits."""


def count_losses(losses: Tensor) -> Tensor:
    """Sum losses (fp32, one for each item).

    Returns int64 of size 2: their sum in units of 2**-32, and the number of those that are not
    finite or absurdly large, which the sum leaves out.
    """
    losses = losses.double()
    usable = losses <= _LARGEST  # false for NaN as well
    return torch.stack([(losses[usable] * _UNIT).round().long().sum(), (~usable).sum()])


def mean_loss(summed: int, num_unusable: int, num_items: int) -> float:
    """Turn total counts into the mean loss of an item; infinite if one was not usable."""
    return float("inf") if num_unusable else float(summed / _UNIT / max(num_items, 1))
