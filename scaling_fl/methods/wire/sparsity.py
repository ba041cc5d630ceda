"""The coordinates of an update that are sent: the largest; their number depends on no value."""

import math
import sys

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# The bits of magnitudes, read as integers, have the order of the magnitudes. numpy selects among
# integers faster than among floats.
Bits = NDArray[np.int32]

_WITHOUT_SIGN = np.int32(0x7FFFFFFF)
_INFINITY = 0x7F800000  # the bits of infinity; the bits of every NaN are larger
_SAMPLE = 1 << 16
_CHUNK = 1 << 16  # values that stay in a core's cache between the passes
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

    The vector is 1-D fp32 on the CPU. Returns ascending int64 indices, which depend on the values
    alone and not on the number of threads.

    Raises:
        ValueError: k is not in [1, size], or the vector has a NaN or another type.

    Source: arXiv 2406.05233 (FLASC), algorithm 1.
    """
    if vector.dtype != torch.float32 or vector.dim() != 1 or vector.device.type != "cpu":
        raise ValueError(
            "top_k takes a 1-D fp32 vector on the CPU, got "
            f"{vector.dtype} {tuple(vector.shape)} on {vector.device}."
        )
    if not 1 <= k <= vector.numel():
        raise ValueError(f"k must be in [1, {vector.numel()}], got {k}.")
    bits = vector.detach().numpy().view(np.int32)
    indices, magnitudes = _not_below(_likely_floor(bits, k), bits)
    if len(indices) < k:
        indices, magnitudes = _not_below(0, bits)
    if magnitudes.max() > _INFINITY:
        raise ValueError("the vector must not have a NaN, which is neither large nor small.")
    smallest = np.partition(magnitudes, len(magnitudes) - k)[len(magnitudes) - k]
    kept = magnitudes >= smallest
    excess = int(np.count_nonzero(kept)) - k
    if excess:
        kept[np.flatnonzero(magnitudes == smallest)[-excess:]] = False
    return torch.from_numpy(indices[kept])


def _likely_floor(bits: Bits, k: int) -> int:
    """Guess from a sample a magnitude that is reached by ``k`` coordinates or a few more.

    The guess changes the time of the search, never its result: after a guess that is too high, the
    caller searches a second time; after one that is too low, among more coordinates.
    """
    sample = np.sort(bits[:: len(bits) // _SAMPLE + 1] & _WITHOUT_SIGN)
    share = k / len(bits)
    # The expected number of the k largest in a random sample, plus six standard deviations.
    reached = len(sample) * share + 6.0 * math.sqrt(len(sample) * share * (1.0 - share)) + 1.0
    return int(sample[max(0, len(sample) - math.ceil(reached))])


def _not_below(floor: int, bits: Bits) -> tuple[NDArray[np.int64], Bits]:
    """List the coordinates of magnitude ``floor`` or more, ascending, and their magnitudes."""
    indices, magnitudes = [], []
    for offset in range(0, len(bits), _CHUNK):
        chunk = bits[offset : offset + _CHUNK] & _WITHOUT_SIGN
        found = np.flatnonzero(chunk >= floor)
        indices.append(found + offset)
        magnitudes.append(chunk[found])
    return np.concatenate(indices), np.concatenate(magnitudes)
