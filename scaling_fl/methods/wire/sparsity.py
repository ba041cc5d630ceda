"""The coordinates of an update that are sent: the largest; their number depends on no value."""

import math
import sys
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# The bits of magnitudes, read as integers, have the order of the magnitudes. numpy selects among
# integers faster than among floats.
Bits = NDArray[np.int32]
Bools = NDArray[np.bool_]

_WITHOUT_SIGN = np.int32(0x7FFFFFFF)
_INFINITY = 0x7F800000  # the bits of infinity; the bits of every NaN are larger
_LARGEST = 0x7FFFFFFF
_SAMPLE = 1 << 17
_APART = 16  # a small vector is not sampled more densely: it is searched in almost no time
_CHUNK = 1 << 17  # values that stay in a core's cache between the passes
_FUZZ = 1e-12  # relative; larger than the rounding error of a density and of its decay


def count_kept(size: int, density: float) -> int:
    """Count the coordinates that are kept: max(1, floor(size * density)).

    Raises:
        ValueError: the size is below 1, or the density is not in (0, 1].
    """
    if size < 1:
        raise ValueError(f"the vector must have at least 1 coordinate, got {size}.")
    if not 0.0 < density <= 1.0:
        raise ValueError(f"the density must be in (0, 1], got {density}.")
    # Without the fuzz, 0.29 * 100 would be 28.999999999999996 and lose a coordinate.
    return min(size, max(1, math.floor(size * density * (1.0 + _FUZZ))))


def density_at(round_number: int, density: float, decay: float, every: int) -> float:
    """Return density * decay ** ((round - 1) // every)."""
    decayed = density * decay ** ((round_number - 1) // every)
    return max(decayed, sys.float_info.min)  # never 0, so that one coordinate is kept


def top_k(vector: Tensor, k: int) -> Tensor:
    """Find the ``k`` coordinates of the largest magnitude; of equal ones, the lower index.

    Takes and raises what ``mark_largest`` does. Returns ascending int64 indices.

    Source: arXiv 2406.05233 (FLASC), algorithm 1.
    """
    return torch.from_numpy(np.flatnonzero(mark_largest(vector, k).numpy()))


def mark_largest(vector: Tensor, k: int) -> Tensor:
    """Mark the ``k`` coordinates of the largest magnitude (bool); of equal ones, the lower index.

    The vector is 1-D fp32 on the CPU. The result depends on the values alone and not on the number
    of threads.

    Raises:
        ValueError: k is not in [1, size], or the vector has a NaN or another type.
    """
    if vector.dtype != torch.float32 or vector.dim() != 1 or vector.device.type != "cpu":
        raise ValueError(
            "the vector must be 1-D fp32 on the CPU, got "
            f"{vector.dtype} {tuple(vector.shape)} on {vector.device}."
        )
    if not 1 <= k <= vector.numel():
        raise ValueError(f"k must be in [1, {vector.numel()}], got {k}.")
    bits = vector.detach().numpy().view(np.int32)
    marks = np.empty(len(bits), dtype=np.bool_)
    between = _mark_above(*_likely_bounds(bits, k), bits, marks)
    if not 0 < k - between.num_above <= len(between.indices):
        between = _mark_above(0, _LARGEST, bits, marks)
    magnitudes, rest = between.magnitudes, k - between.num_above
    smallest = np.partition(magnitudes, len(magnitudes) - rest)[len(magnitudes) - rest]
    kept = magnitudes >= smallest
    excess = int(np.count_nonzero(kept)) - rest
    if excess:
        kept[np.flatnonzero(magnitudes == smallest)[-excess:]] = False
    marks[between.indices[kept]] = True
    return torch.from_numpy(marks)


def _likely_bounds(bits: Bits, k: int) -> tuple[int, int]:
    """Guess from a sample two magnitudes with that of the ``k``-th largest coordinate between them.

    The guess changes the time of the search, never its result: after a wrong guess, the caller
    searches a second time, among all coordinates.
    """
    sample = bits[:: max(_APART, len(bits) // _SAMPLE)] & _WITHOUT_SIGN
    share = k / len(bits)
    # The expected number of the k largest in a random sample, and six standard deviations.
    expected = len(sample) * share
    margin = 6.0 * math.sqrt(expected * (1.0 - share)) + 1.0
    low = max(0, len(sample) - math.ceil(expected + margin))
    high = len(sample) - math.floor(expected - margin)
    if high >= len(sample):
        return int(np.partition(sample, low)[low]), _LARGEST
    ordered = np.partition(sample, (low, high))
    return int(ordered[low]), int(ordered[high])


class _Between(NamedTuple):
    """The coordinates between two magnitudes, ascending."""

    indices: NDArray[np.int64]
    magnitudes: Bits
    num_above: int
    """The number of coordinates of a larger magnitude."""


def _mark_above(low: int, high: int, bits: Bits, marks: Bools) -> _Between:
    """Mark the magnitudes above ``high``, and list the other ones of at least ``low``."""
    indices, magnitudes, num_above = [], [], 0
    chunk = np.empty(min(len(bits), _CHUNK), dtype=np.int32)
    others = np.empty(len(chunk), dtype=np.bool_)
    for offset in range(0, len(bits), _CHUNK):
        above = marks[offset : offset + _CHUNK]
        chunk, others = chunk[: len(above)], others[: len(above)]
        np.bitwise_and(bits[offset : offset + _CHUNK], _WITHOUT_SIGN, out=chunk)
        if chunk.max() > _INFINITY:
            raise ValueError("the vector must not have a NaN, which is neither large nor small.")
        np.greater(chunk, high, out=above)
        num_above += int(np.count_nonzero(above))
        np.greater_equal(chunk, low, out=others)
        found = np.flatnonzero(np.not_equal(others, above, out=others))
        indices.append(found + offset)
        magnitudes.append(chunk[found])
    return _Between(np.concatenate(indices), np.concatenate(magnitudes), num_above)
