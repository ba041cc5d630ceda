"""NF4: 4 bits for each value and a scale for each block of 64, exactly as bitsandbytes has them.

Source: Dettmers et al., QLoRA, arXiv 2305.14314, section 3 (NormalFloat, double quantisation).
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

BLOCK = 64
SCALE_BLOCK = 256
# fmt: off
LEVELS: Floats = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
], dtype=np.float32)
# fmt: on
_BOUNDS: Floats = (LEVELS[:-1] + LEVELS[1:]) / np.float32(2)
_SMALLEST = 1e-38  # what bitsandbytes divides by where a block has nothing larger
_CHUNK = 1 << 16  # values that stay in a core's cache between the passes

_every_byte = np.arange(256)
# A byte of codes looks both of its values up at once, moved as one item of 8 bytes.
_PAIRS = LEVELS[np.stack([_every_byte >> 4, _every_byte & 15], axis=1)].view(np.uint64).ravel()


def num_blocks(count: int, block: int = BLOCK) -> int:
    return -(-count // block)


def quantise(values: Tensor) -> tuple[Bytes, Floats]:
    """Quantise finite fp32 values to packed codes (two a byte, the first high) and scales.

    A block of nothing but zeros gets codes that decode to zeros. Quantising what was decoded
    changes nothing, except in whole blocks whose largest magnitude is below 1e-38: there the
    codes are relative to 1e-38 but the scale is not (bitsandbytes has it so).
    """
    count = values.numel()
    scales = torch.empty(num_blocks(count))
    codes = np.empty((count + 1) // 2, dtype=np.uint8)
    whole = count // BLOCK * BLOCK
    for start in range(0, whole, _CHUNK):
        rows = values[start : min(start + _CHUNK, whole)].view(-1, BLOCK)
        largest = scales[start // BLOCK :][: len(rows)]
        torch.amax(rows.abs(), dim=1, out=largest)
        scaled = rows * (1.0 / largest.clamp(min=_SMALLEST))[:, None]
        codes[start // 2 : start // 2 + scaled.numel() // 2] = _pack(scaled)
    if whole < count:
        # bitsandbytes divides in an incomplete block, which rounds otherwise than above.
        last = torch.zeros(1, BLOCK)
        last[0, : count - whole] = values[whole:]
        scales[-1] = last.abs().max().clamp(min=_SMALLEST)
        codes[whole // 2 :] = _pack(last / scales[-1])[: len(codes) - whole // 2]
    return codes, scales.numpy()


def dequantise(codes: Bytes, scales: Floats, out: Tensor) -> None:
    """Decode as many values as ``out`` (1-D fp32, contiguous) has: level times scale, rounded."""
    whole = out.numel() // BLOCK * BLOCK
    pairs = out.numpy()[:whole].view(np.uint64)
    places = np.empty(_CHUNK // 2, dtype=np.intp)
    rows = out[:whole].view(-1, BLOCK).split(_CHUNK // BLOCK)
    factors = torch.from_numpy(scales)[:, None].split(_CHUNK // BLOCK)
    starts = range(0, whole // 2, _CHUNK // 2)
    for start, values, factor in zip(starts, rows, factors, strict=False):  # scales may have a tail
        chunk = pairs[start : start + _CHUNK // 2]
        part = places[: len(chunk)]
        part[:] = codes[start : start + len(chunk)]
        # Every byte is in the table; the default mode would check that and copy.
        _PAIRS.take(part, 0, chunk, "clip")
        values.mul_(factor[: len(values)])
    if whole < out.numel():
        last = torch.from_numpy(_PAIRS[codes[whole // 2 :]].view(np.float32))
        torch.mul(last[: out.numel() - whole], float(scales[-1]), out=out[whole:])


def scale_blocks(values: Tensor, scales: Tensor) -> None:
    """Multiply each block of values, the last of which may be incomplete, by its scale in place."""
    whole = values.numel() // BLOCK
    values[: whole * BLOCK].view(-1, BLOCK).mul_(scales[:whole, None])
    values[whole * BLOCK :].mul_(scales[whole : whole + 1])


def _pack(scaled: Tensor) -> Bytes:
    """Give each value the code of its nearest level (of two, the lower) and pack the codes."""
    values = scaled.numpy().ravel()
    # Fifteen comparisons at the speed of the cache beat any search for the right level.
    codes = (values > _BOUNDS[0]).view(np.uint8)
    above = np.empty(len(values), dtype=np.bool_)
    for bound in _BOUNDS[1:]:
        codes += np.greater(values, bound, out=above).view(np.uint8)
    pairs: NDArray[np.uint16] = codes.view("<u2")
    return ((pairs << 4) | (pairs >> 8)).astype(np.uint8)  # the cast drops the upper byte


class CompressedScales(NamedTuple):
    """Scales less their mean, in 8 bits: ``offset + absmax * level``, absmax per block of 256."""

    offset: np.float32
    absmax: Floats
    codes: Bytes


def _dynamic_levels() -> Floats:
    """List the 256 levels of the dynamic 8-bit type: seven decades, each finer than the last.

    Source: Dettmers, arXiv 1511.04561, section 2.2; linear within a decade as in bitsandbytes.
    """
    levels = [0.0, 1.0]
    for decade in range(7):
        edges = torch.linspace(0.1, 1.0, 2**decade + 1)
        middles = 10.0 ** (decade - 6) * ((edges[:-1] + edges[1:]) / 2)
        levels += [*middles.tolist(), *(-middles).tolist()]
    return np.sort(np.array(levels, dtype=np.float32))


DYNAMIC_LEVELS = _dynamic_levels()
_DYNAMIC_BOUNDS: Floats = (DYNAMIC_LEVELS[:-1] + DYNAMIC_LEVELS[1:]) / np.float32(2)


def compress_scales(scales: Floats) -> CompressedScales:
    """Quantise the scales of NF4 blocks a second time, each to the nearest level.

    The search of bitsandbytes on the CPU is approximate: about one scale in two hundred gets the
    level next to the nearest there.

    Source: QLoRA, arXiv 2305.14314, section 3, "Double Quantization".
    """
    count = len(scales)
    # The sum in double precision leaves no trace of its order in the mean.
    offset = np.float32(scales.mean(dtype=np.float64)) if count else np.float32(0)
    rows = np.zeros((num_blocks(count, SCALE_BLOCK), SCALE_BLOCK), dtype=np.float32)
    rows.ravel()[:count] = scales - offset
    absmax = np.abs(rows).max(axis=1)
    rows /= np.where(absmax > 0, absmax, np.float32(1))[:, None]
    codes = np.searchsorted(_DYNAMIC_BOUNDS, rows.ravel()[:count])
    return CompressedScales(offset, absmax, codes.astype(np.uint8))


def expand_scales(compressed: CompressedScales) -> Floats:
    """Decode the scales; a hostile offset may make them overflow to infinity."""
    levels = DYNAMIC_LEVELS[compressed.codes]
    absmax = np.repeat(compressed.absmax, SCALE_BLOCK)[: len(levels)]
    with np.errstate(over="ignore"):
        return levels * absmax + compressed.offset
