"""Sums that do not depend on their order: int64 fixed point, so placement cannot change a bit.

A term is a vector times a share of at most one; the shares of one sum add up to at most one.
With 2**-52 as the unit and terms of at most 2**10, no sum can overflow its 63 bits.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FRACTION_BITS = 52
LIMIT = 2.0**10
"""The largest magnitude of a coordinate; an update beyond it has diverged."""
_UNIT = 2.0**FRACTION_BITS
_CHUNK = 1 << 16  # doubles that stay in a core's cache between the passes
_SHIFT = 1.5 * 2.0**52
"""Plus a double of at most 2**51, it is a double of [2**52, 2**53], where only whole numbers are.

So the addition rounds to the nearest whole number, ties to even, as ``round`` does. The bits of
these doubles count up with them: bits(_SHIFT + k) = bits(_SHIFT) + k for a whole number k.
"""
_SHIFT_BITS = int(np.float64(_SHIFT).view(np.int64))


def is_summable(vector: Tensor) -> bool:
    """Say whether every coordinate is finite and within ``LIMIT`` (NaN fails both comparisons)."""
    if vector.numel() == 0:
        return True
    low, high = torch.aminmax(vector)
    return bool((low >= -LIMIT) & (high <= LIMIT))


class ExactSum:
    """The sum of ``share * vector`` over clients, exact in units of 2**-52 per term.

    One int64 buffer of the vector's size, whatever the number of terms: ``units`` (zeros), if
    given, for example from ``Exchange.zeros``. ``units`` of several workers may be added in any
    order.
    """

    def __init__(self, size: int, device: torch.device, units: Tensor | None = None) -> None:
        if units is None:
            units = torch.zeros(size, dtype=torch.int64, device=device)
        self.units = units
        chunk = min(size, _CHUNK)
        self._scaled = torch.empty(chunk, dtype=torch.float64, device=device)
        self._rounded = torch.empty(chunk, dtype=torch.int64, device=device)

    def clear(self) -> None:
        self.units.zero_()

    def add(self, vector: Tensor, share: float) -> None:
        """Add ``share * vector``; the vector is fp32 of the sum's size and must be summable."""
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"a client's share must be in [0, 1], got {share}.")
        add = self._add_on_cpu if vector.device.type == "cpu" else self._add_anywhere
        for units, part in zip(self.units.split(_CHUNK), vector.split(_CHUNK), strict=True):
            add(units, part, share * _UNIT)

    def _add_on_cpu(self, units: Tensor, part: Tensor, factor: float) -> None:
        """Add without the conversion from double to int64, which has no vector instruction.

        Most parts of a large embedding do not change in a few steps, and add nothing.
        """
        low, high = torch.aminmax(part)
        largest = factor * max(-float(low), float(high))
        if largest < 0.5:
            return
        if not largest <= 2.0**51:
            self._add_anywhere(units, part, factor)
            return
        shifted: NDArray[np.float64] = self._scaled[: part.numel()].numpy()
        np.copyto(shifted, part.numpy())
        shifted *= factor
        shifted += _SHIFT
        rounded = shifted.view(np.int64)
        rounded -= _SHIFT_BITS
        total = units.numpy()
        total += rounded  # numpy adds int64 three times as fast as torch

    def _add_anywhere(self, units: Tensor, part: Tensor, factor: float) -> None:
        scaled, rounded = self._scaled[: part.numel()], self._rounded[: part.numel()]
        scaled.copy_(part).mul_(factor).round_()
        units.add_(rounded.copy_(scaled))

    def mean(self, out: Tensor, included_share: float) -> Tensor:
        """Write the sum divided by the share of the clients that are in it into ``out`` (fp32)."""
        for start in range(0, out.numel(), _CHUNK):
            part = self.units[start : start + _CHUNK]
            scaled = self._scaled[: part.numel()]
            scaled.copy_(part).mul_(1.0 / _UNIT)
            if included_share != 1.0:
                scaled.div_(included_share)
            out[start : start + _CHUNK].copy_(scaled)
        return out

    def add_share(self, share: float, indices: Tensor | None) -> None:
        """Add ``share`` at some coordinates (None: all), to count who is in a sum."""
        amount = round(share * _UNIT)
        if indices is None:
            self.units.add_(amount)
        else:
            self.units[indices] += amount

    def mean_over(self, out: Tensor, shares: "ExactSum") -> Tensor:
        """Write the sum divided by ``shares``, coordinate by coordinate; 0 where that is 0."""
        for start in range(0, out.numel(), _CHUNK):
            place = slice(start, start + _CHUNK)
            quotient = self.units[place].double() / shares.units[place].double()
            out[place].copy_(quotient.nan_to_num_(nan=0.0))
        return out
