"""Which coordinates of an update are sent: the largest, always exactly as many as promised."""

import math
import sys

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Magnitudes order as their bits do that are read as integers, which numpy is faster at selecting.
Bits = NDArray[np.int32]

_WITHOUT_SIGN = np.int32(0x7FFFFFFF)
_INFINITY = 0x7F800000  # the bits of infinity; those of every NaN are above
_SAMPLE = 1 << 16
_CHUNK = 1 << 16  # values that stay in a core's cache between the passes
_FUZZ = 1e-12  # relative; above the rounding of a density and of its decay


def count_kept(size: int, density: float) -> int:
    """Count the coordinates kept out of ``size``: floor(size * density), but at least one.

    Raises:
        ValueError: when there is no coordinate or the density is not in (0, 1].
    """
    if size < 1:
        raise ValueError(f"a vector must have a coordinate to keep, got {size} of them.")
    if not 0.0 < density <= 1.0:
        raise ValueError(f"the density must be in (0, 1], got {density}.")
    # Without the fuzz, 29 % of 100 would be 28.999999999999996 and lose one.
    return min(size, max(1, math.floor(size * density * (1.0 + _FUZZ))))


def density_at(round_number: int, density: float, decay: float, every: int) -> float:
    """Compute a round's density, multiplied by ``decay`` after every so many rounds (from 1)."""
    decayed = density * decay ** ((round_number - 1) // every)
    return max(decayed, sys.float_info.min)  # some density is left, and keeps a coordinate


def top_k(vector: Tensor, k: int) -> Tensor:
    """Find the ``k`` coordinates of largest magnitude; of equal ones, the lower index wins.

    The result, ascending int64 indices, depends on the values alone: no thread count, no order of
    summation. The vector is 1-D fp32 on the CPU.

    Raises:
        ValueError: when k is not in [1, size], or the vector has a NaN or another type.

    Source: arXiv 2406.05233 (FLASC), algorithm 1.
    """
    if vector.dtype != torch.float32 or vector.dim() != 1 or vector.device.type != "cpu":
        raise ValueError(
            "top_k takes a 1-D fp32 vector on the CPU, got "
            f"{vector.dtype} {tuple(vector.shape)} on {vector.device}."
        )
    if not 1 <= k <= vector.numel():
        raise ValueError(f"k must be in [1, {vector.numel()}], the vector's size, got {k}.")
    bits = vector.detach().numpy().view(np.int32)
    indices, magnitudes = _not_below(_likely_floor(bits, k), bits)
    if len(indices) < k:
        indices, magnitudes = _not_below(0, bits)
    if magnitudes.max() > _INFINITY:
        raise ValueError("the vector has a NaN, which is neither large nor small.")
    smallest = np.partition(magnitudes, len(magnitudes) - k)[len(magnitudes) - k]
    kept = magnitudes >= smallest
    excess = int(np.count_nonzero(kept)) - k
    if excess:
        kept[np.flatnonzero(magnitudes == smallest)[-excess:]] = False
    return torch.from_numpy(indices[kept])


def _likely_floor(bits: Bits, k: int) -> int:
    """Guess a magnitude that few more than ``k`` reach, from every so manieth coordinate.

    A guess too high costs the caller a second search and one too low a longer one: the outcome
    does not depend on it.
    """
    sample = np.sort(bits[:: len(bits) // _SAMPLE + 1] & _WITHOUT_SIGN)
    share = k / len(bits)
    # Six standard deviations of how many of a random sample are among the k largest.
    reached = len(sample) * share + 6.0 * math.sqrt(len(sample) * share * (1.0 - share)) + 1.0
    return int(sample[max(0, len(sample) - math.ceil(reached))])


def _not_below(floor: int, bits: Bits) -> tuple[NDArray[np.int64], Bits]:
    """List the coordinates of at least this magnitude, ascending, and their magnitudes."""
    indices, magnitudes = [], []
    for start in range(0, len(bits), _CHUNK):
        chunk = bits[start : start + _CHUNK] & _WITHOUT_SIGN
        found = np.flatnonzero(chunk >= floor)
        indices.append(found + start)
        magnitudes.append(chunk[found])
    return np.concatenate(indices), np.concatenate(magnitudes)
