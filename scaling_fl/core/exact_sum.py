"""Exact sums: in int64 fixed point, neither the order nor the placement of terms changes a bit.

A term is share * vector; each share and the sum of all shares are at most 1. A sum holds integers:
round(2**52 * term), added up. Coordinates of at most 2**10 cannot overflow the 63 bits.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FRACTION_BITS = 52
LIMIT = 2.0**10
"""The largest magnitude of a coordinate; an update beyond it has diverged."""
_SCALE = 2.0**FRACTION_BITS
_CHUNK = 1 << 16  # doubles that stay in a core's cache between the passes
_SHIFT = 1.5 * 2.0**52
"""For |x| <= 2**51, the double _SHIFT + x is in [2**52, 2**53], where all doubles are integers.

So the addition rounds x to the nearest integer, ties to even, as ``round`` does. There, the bits
of a double count with its value: bits(_SHIFT + k) = bits(_SHIFT) + k for every integer k.
"""
_WHOLE = slice(None)
_SHIFT_BITS = int(np.float64(_SHIFT).view(np.int64))


def is_summable(vector: Tensor) -> bool:
    """Say whether every coordinate is finite and within ``LIMIT`` (NaN fails both comparisons)."""
    if vector.numel() == 0:
        return True
    low, high = torch.aminmax(vector)
    return bool((low >= -LIMIT) & (high <= LIMIT))


class ExactSum:
    """The sum of ``share * vector`` over clients; each term is rounded to a multiple of 2**-52.

    The sum is in one int64 buffer of the vector's size: ``integers`` (zeros, for example from
    ``Exchange.zeros``), or else new memory. The ``integers`` of all workers may be added in any
    order.
    """

    def __init__(self, size: int, device: torch.device, integers: Tensor | None = None) -> None:
        if integers is None:
            integers = torch.zeros(size, dtype=torch.int64, device=device)
        self.integers = integers
        chunk = min(size, _CHUNK)
        self._scaled = torch.empty(chunk, dtype=torch.float64, device=device)
        self._rounded = torch.empty(chunk, dtype=torch.int64, device=device)

    def clear(self) -> None:
        self.integers.zero_()

    def add(
        self, vector: Tensor, share: float, where: Tensor | None = None, place: slice = _WHOLE
    ) -> None:
        """Add ``share * vector``; the vector is fp32, see ``is_summable``.

        ``where`` marks the coordinates that count (bool; None: all). ``place`` is where the vector
        belongs in the sum, if it is a part.
        """
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"a client's share must be in [0, 1], got {share}.")
        add = self._add_on_cpu if vector.device.type == "cpu" else self._add_anywhere
        integers = self.integers[place]
        for start in range(0, vector.numel(), _CHUNK):
            part = slice(start, start + _CHUNK)
            marks = None if where is None else where[part]
            add(integers[part], vector[part], share * _SCALE, marks)

    def _add_on_cpu(
        self, integers: Tensor, chunk: Tensor, factor: float, marks: Tensor | None
    ) -> None:
        """Add a chunk without the conversion from double to int64, which has no vector instruction.

        A chunk that is too small to change the sum is skipped: most chunks of a large embedding do
        not change in a few steps.
        """
        values = chunk.numpy()
        largest = factor * max(-float(values.min()), float(values.max()))
        if largest < 0.5:
            return
        if not largest <= 2.0**51:
            self._add_anywhere(integers, chunk, factor, marks)
            return
        shifted: NDArray[np.float64] = self._scaled[: chunk.numel()].numpy()
        if marks is None:
            np.copyto(shifted, values)
        else:
            np.multiply(values, marks.numpy(), out=shifted)
        shifted *= factor
        shifted += _SHIFT
        rounded = shifted.view(np.int64)
        rounded -= _SHIFT_BITS
        total = integers.numpy()
        total += rounded  # numpy adds int64 three times as fast as torch

    def _add_anywhere(
        self, integers: Tensor, chunk: Tensor, factor: float, marks: Tensor | None
    ) -> None:
        scaled, rounded = self._scaled[: chunk.numel()], self._rounded[: chunk.numel()]
        scaled.copy_(chunk).mul_(factor).round_()
        if marks is not None:
            scaled.mul_(marks)
        integers.add_(rounded.copy_(scaled))

    def mean(self, out: Tensor, included_share: float) -> Tensor:
        """Write sum / included_share to ``out`` (fp32); the share is that of the summed clients."""
        for total, result in zip(self.integers.split(_CHUNK), out.split(_CHUNK), strict=True):
            scaled = self._scaled[: total.numel()]
            scaled.copy_(total).mul_(1.0 / _SCALE)
            if included_share != 1.0:
                scaled.div_(included_share)
            result.copy_(scaled)
        return out

    def add_share(self, share: float, where: Tensor | None, place: slice = _WHOLE) -> None:
        """Add ``share`` at some coordinates, to sum the shares of the clients there.

        ``where`` has their indices or one bool for each (None: all), within ``place``.
        """
        amount, integers = round(share * _SCALE), self.integers[place]
        if where is None:
            integers.add_(amount)
        elif where.dtype == torch.bool and where.device.type == "cpu":
            for total, marks in zip(integers.split(_CHUNK), where.split(_CHUNK), strict=True):
                amounts = self._rounded[: marks.numel()].numpy()
                np.multiply(marks.numpy(), amount, out=amounts)
                summed = total.numpy()
                summed += amounts
        else:
            integers[where] += amount

    def mean_over(self, out: Tensor, shares: "ExactSum") -> Tensor:
        """Write sum / shares to ``out`` (fp32), coordinate by coordinate; 0 / 0 is 0."""
        sums = (self.integers.split(_CHUNK), shares.integers.split(_CHUNK), out.split(_CHUNK))
        for total, share, result in zip(*sums, strict=True):
            quotient = self._scaled[: total.numel()]
            quotient.copy_(total).div_(share.double())
            result.copy_(quotient.nan_to_num_(nan=0.0))
        return out
