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
_CHUNK = 1 << 15  # doubles that stay in a core's cache between the passes
_SHIFT = 1.5 * 2.0**52
"""Plus a double of at most 2**51, it is a double of [2**52, 2**53], where only whole numbers are.

So the addition rounds to the nearest whole number, ties to even, as ``round`` does. And the bits
of these doubles count up with their values.
"""
_SHIFT_BITS = int(np.float64(_SHIFT).view(np.int64))

Term = tuple[Tensor, float]
"""A vector and its share."""


def is_summable(vector: Tensor) -> bool:
    """Say whether every coordinate is finite and within ``LIMIT`` (NaN fails both comparisons)."""
    if vector.numel() == 0:
        return True
    low, high = torch.aminmax(vector)
    return bool((low >= -LIMIT) & (high <= LIMIT))


class ExactSum:
    """The sum of ``share * vector`` over clients, exact in units of 2**-52 per term.

    One int64 buffer of the vector's size, whatever the number of terms: ``units``, if given, for
    example from ``Exchange.zeros``. On a CPU there is one more fp32 vector, since two terms are
    added in one pass: the first of them waits in a copy for the second. The units of several
    workers may be added in any order.
    """

    def __init__(self, size: int, device: torch.device, units: Tensor | None = None) -> None:
        if units is None:
            units = torch.empty(size, dtype=torch.int64, device=device)
        self._units = units
        self._is_empty = True
        self._copy: Tensor | None = None
        self._waiting: list[Term] = []
        chunk = min(size, _CHUNK)
        self._scaled = torch.empty(chunk, dtype=torch.float64, device=device)
        self._rounded = torch.empty(chunk, dtype=torch.int64, device=device)

    @property
    def units(self) -> Tensor:
        """The sum of all terms, int64; a change of this tensor changes the sum."""
        if self._is_empty or self._waiting:
            self._add_waiting()
        return self._units

    def clear(self) -> None:
        self._is_empty, self._waiting = True, []

    def add(self, vector: Tensor, share: float) -> None:
        """Add ``share * vector``; the vector is fp32 of the sum's size and must be summable."""
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"a client's share must be in [0, 1], got {share}.")
        if self._waiting or vector.device.type != "cpu":
            self._waiting.append((vector, share))
            self._add_waiting()
        else:
            self._copy = torch.empty_like(vector) if self._copy is None else self._copy
            self._waiting.append((self._copy.copy_(vector), share))

    def _add_waiting(self) -> None:
        for start in range(0, self._units.numel(), _CHUNK):
            place = slice(start, start + _CHUNK)
            parts = [(vector[place], share) for vector, share in self._waiting]
            if parts and all(_is_small(part, share) for part, share in parts):
                self._add_small(self._units[place], *parts)
            else:
                self._add_any(self._units[place], parts)
        self._is_empty, self._waiting = False, []

    def _add_any(self, units: Tensor, parts: list[Term]) -> None:
        if self._is_empty:
            units.zero_()
        for part, share in parts:
            scaled, rounded = self._scaled[: part.numel()], self._rounded[: part.numel()]
            scaled.copy_(part).mul_(share * _UNIT).round_()
            units.add_(rounded.copy_(scaled))

    def _add_small(self, units: Tensor, one: Term, two: Term | None = None) -> None:
        """Add one term or two on a CPU, without the slow conversion from double to int64.

        As bits(_SHIFT + k) = bits(_SHIFT) + k for whole numbers k, the sum of two terms k + m is
        bits(_SHIFT + k) - bits(_SHIFT - m).
        """
        size = units.numel()
        total = _shifted(one, 1, self._scaled[:size])
        total -= _shifted(two, -1, self._rounded[:size].view(torch.float64)) if two else _SHIFT_BITS
        if self._is_empty:
            np.copyto(units.numpy(), total)
        else:
            units.numpy()[:] += total

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


def _is_small(part: Tensor, share: float) -> bool:
    """Say whether ``share * part`` has at most 2**51 units everywhere, on a CPU."""
    if part.device.type != "cpu":
        return False
    low, high = torch.aminmax(part)
    return share * max(-float(low), float(high)) <= 0.5


def _shifted(term: Term, sign: int, out: Tensor) -> NDArray[np.int64]:
    """Write _SHIFT + sign * term, in units, over ``out`` (double) and return its bits."""
    part, share = term
    shifted: NDArray[np.float64] = out.numpy()
    np.copyto(shifted, part.numpy())
    shifted *= sign * share * _UNIT
    shifted += _SHIFT
    return shifted.view(np.int64)
