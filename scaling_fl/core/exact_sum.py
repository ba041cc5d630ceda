"""Exact sums: in int64 fixed point, neither the order nor the placement of terms changes a bit.

A term is share * vector; each share and the sum of all shares are at most 1. A sum holds integers:
round(2**52 * term), added up. Coordinates below 2**11 cannot overflow the 63 bits, and others are
refused; those of updates are at most 2**10, so that a merge may double one.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FRACTION_BITS = 52
LIMIT = 2.0**10
"""The largest magnitude of a coordinate; an update beyond it has diverged."""
_SCALE = 2.0**FRACTION_BITS
CHUNK = 1 << 16  # doubles that stay in a core's cache between the passes
_SHIFT = 1.5 * 2.0**52
"""For |x| <= 2**51, the double _SHIFT + x is in [2**52, 2**53], where all doubles are integers.

So the addition rounds x to the nearest integer, ties to even, as ``round`` does. There, the bits
of a double count with its value: bits(_SHIFT + k) = bits(_SHIFT) + k for every integer k.
"""
_SHIFT_BITS = int(np.float64(_SHIFT).view(np.int64))


def is_summable(vector: Tensor) -> bool:
    """Say whether every coordinate is finite and within ``LIMIT`` (NaN fails both comparisons)."""
    if vector.numel() == 0:
        return True
    low, high = torch.aminmax(vector)
    return bool((low >= -LIMIT) & (high <= LIMIT))


def check_terms(vector: Tensor) -> None:
    """Raise ValueError unless terms of the vector, whatever their shares, fit into a sum."""
    largest = float(vector.abs().max()) if vector.numel() else 0.0
    if not largest < 2.0 * LIMIT:
        raise ValueError(
            f"a vector must be below {2 * LIMIT:g} everywhere to be summed, got {largest:g}; scale "
            "it down and the sum up."
        )


def as_integer(share: float) -> int:
    """Return how a sum of shares holds one."""
    return round(share * _SCALE)


def add_integers(total: Tensor, terms: Tensor) -> None:
    """Add int64 ``terms`` to ``total``, in place."""
    if total.device.type != "cpu":
        total.add_(terms)
        return
    summed = total.numpy()
    summed += terms.numpy()  # numpy adds int64 three times as fast as torch


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
        chunk = min(size, CHUNK)
        self._scaled = torch.empty(chunk, dtype=torch.float64, device=device)
        self._rounded = torch.empty(chunk, dtype=torch.int64, device=device)

    def clear(self) -> None:
        self.integers.zero_()

    def add(self, vector: Tensor, share: float) -> None:
        """Add ``share * vector`` (fp32).

        Raises:
            ValueError: the share is not in [0, 1], or a coordinate is not finite or 2**11 or more.
        """
        if vector.device.type != "cpu":
            check_terms(vector)  # at once, because each look waits for the GPU
        for start in range(0, vector.numel(), CHUNK):
            part = slice(start, start + CHUNK)
            terms = self.integers_of(vector[part], share)
            if terms is not None:
                add_integers(self.integers[part], terms)

    def integers_of(self, chunk: Tensor, share: float) -> Tensor | None:
        """Return ``share * chunk`` as the sum holds it, up to ``CHUNK``; None: all are 0.

        The next call overwrites the result.
        """
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"a client's share must be in [0, 1], got {share}.")
        rounded = self._on_cpu if chunk.device.type == "cpu" else self._anywhere
        return rounded(chunk, share * _SCALE)

    def _on_cpu(self, chunk: Tensor, factor: float) -> Tensor | None:
        """Round without the conversion from double to int64, which has no vector instruction.

        A chunk that is too small to change the sum is None: most chunks of a large embedding do not
        change in a few steps.
        """
        values = chunk.numpy()
        largest = factor * max(-float(values.min()), float(values.max()))
        if largest < 0.5:
            return None
        if not largest < 2.0 * LIMIT * factor:
            check_terms(chunk)
        if largest > 2.0**51:
            return self._anywhere(chunk, factor)
        scaled = self._scaled[: chunk.numel()]
        shifted: NDArray[np.float64] = scaled.numpy()
        np.copyto(shifted, values)
        shifted *= factor
        shifted += _SHIFT
        rounded = shifted.view(np.int64)
        rounded -= _SHIFT_BITS
        return scaled.view(torch.int64)

    def _anywhere(self, chunk: Tensor, factor: float) -> Tensor:
        scaled, rounded = self._scaled[: chunk.numel()], self._rounded[: chunk.numel()]
        return rounded.copy_(scaled.copy_(chunk).mul_(factor).round_())

    def mean(self, out: Tensor, included_share: float) -> Tensor:
        """Write sum / included_share to ``out`` (fp32); the share is that of the summed clients."""
        for total, result in zip(self.integers.split(CHUNK), out.split(CHUNK), strict=True):
            scaled = self._scaled[: total.numel()]
            scaled.copy_(total).mul_(1.0 / _SCALE)
            if included_share != 1.0:
                scaled.div_(included_share)
            result.copy_(scaled)
        return out

    def add_share(self, share: float, where: Tensor | None) -> None:
        """Add ``share`` at some coordinates, to sum the shares of the clients there.

        ``where`` has their indices or one bool for each (None: all).
        """
        if where is None:
            self.integers.add_(as_integer(share))
        else:
            self.integers[where] += as_integer(share)

    def mean_over(self, out: Tensor, shares: "ExactSum") -> Tensor:
        """Write sum / shares to ``out`` (fp32), coordinate by coordinate; 0 / 0 is 0."""
        sums = (self.integers.split(CHUNK), shares.integers.split(CHUNK), out.split(CHUNK))
        for total, share, result in zip(*sums, strict=True):
            quotient = self._scaled[: total.numel()]
            quotient.copy_(total).div_(share.double())
            result.copy_(quotient.nan_to_num_(nan=0.0))
        return out
