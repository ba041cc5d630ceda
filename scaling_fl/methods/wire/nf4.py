"""NF4: 4 bits for each value and a scale for each block of 64, bitwise as in bitsandbytes.

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
_SMALLEST = 1e-38  # bitsandbytes divides by this where all magnitudes of a block are smaller
_CHUNK = 1 << 16  # values that stay in a core's cache between the passes

_every_byte = np.arange(256)
# One look-up decodes both codes of a byte: their two fp32 values are one item of 8 bytes.
_PAIRS = LEVELS[np.stack([_every_byte >> 4, _every_byte & 15], axis=1)].view(np.uint64).ravel()


def num_blocks(count: int, block: int = BLOCK) -> int:
    return -(-count // block)


def quantise(values: Tensor) -> tuple[Bytes, Floats]:
    """Quantise finite fp32 values to scales and packed codes (two a byte, the first one high).

    A block of zeros decodes to zeros. To quantise decoded values once more changes nothing, except
    in complete blocks with a largest magnitude below 1e-38: there, as in bitsandbytes, the codes
    are relative to 1e-38, but the scale is the largest magnitude.
    """
    count = values.numel()
    scales = torch.empty(num_blocks(count))
    codes = np.empty((count + 1) // 2, dtype=np.uint8)
    complete = count // BLOCK * BLOCK
    for offset in range(0, complete, _CHUNK):
        rows = values[offset : min(offset + _CHUNK, complete)].view(-1, BLOCK)
        largest = scales[offset // BLOCK :][: len(rows)]
        torch.amax(rows.abs(), dim=1, out=largest)
        scaled = rows * (1.0 / largest.clamp(min=_SMALLEST))[:, None]
        codes[offset // 2 : offset // 2 + scaled.numel() // 2] = _pack(scaled)
    if complete < count:
        # In an incomplete block, bitsandbytes divides; that rounds differently from the product.
        last = torch.zeros(1, BLOCK)
        last[0, : count - complete] = values[complete:]
        scales[-1] = last.abs().max().clamp(min=_SMALLEST)
        codes[complete // 2 :] = _pack(last / scales[-1])[: len(codes) - complete // 2]
    return codes, scales.numpy()


def dequantise(codes: Bytes, scales: Floats, out: Tensor) -> None:
    """Decode to ``out`` (1-D fp32, contiguous), which has the number of values: level * scale."""
    complete = out.numel() // BLOCK * BLOCK
    pairs = out.numpy()[:complete].view(np.uint64)
    indices = np.empty(_CHUNK // 2, dtype=np.intp)
    rows = out[:complete].view(-1, BLOCK).split(_CHUNK // BLOCK)
    factors = torch.from_numpy(scales)[:, None].split(_CHUNK // BLOCK)
    offsets = range(0, complete // 2, _CHUNK // 2)
    # The last scale may belong to an incomplete block, so there may be one more chunk of scales.
    for offset, values, factor in zip(offsets, rows, factors, strict=False):
        chunk = pairs[offset : offset + _CHUNK // 2]
        here = indices[: len(chunk)]
        here[:] = codes[offset : offset + len(chunk)]
        # The table has an entry for every byte; the default mode would check that, and copy.
        _PAIRS.take(here, 0, chunk, "clip")
        values.mul_(factor[: len(values)])
    if complete < out.numel():
        last = torch.from_numpy(_PAIRS[codes[complete // 2 :]].view(np.float32))
        torch.mul(last[: out.numel() - complete], float(scales[-1]), out=out[complete:])


def scale_blocks(values: Tensor, scales: Tensor) -> None:
    """Multiply each block of values by its scale, in place; the last block may be incomplete."""
    complete = values.numel() // BLOCK
    values[: complete * BLOCK].view(-1, BLOCK).mul_(scales[:complete, None])
    values[complete * BLOCK :].mul_(scales[complete : complete + 1])


def _pack(scaled: Tensor) -> Bytes:
    """Give each value the code of the nearest level (of two, the lower) and pack the codes."""
    values = scaled.numpy().ravel()
    # Fifteen comparisons in the cache are faster than any search for the nearest level.
    codes = (values > _BOUNDS[0]).view(np.uint8)
    above = np.empty(len(values), dtype=np.bool_)
    for bound in _BOUNDS[1:]:
        codes += np.greater(values, bound, out=above).view(np.uint8)
    pairs: NDArray[np.uint16] = codes.view("<u2")
    return ((pairs << 4) | (pairs >> 8)).astype(np.uint8)  # the cast drops the upper byte


class CompressedScales(NamedTuple):
    """Scales in 8 bits: offset + absmax * level, with the mean as offset, an absmax per 256."""

    offset: np.float32
    absmax: Floats
    codes: Bytes


def _dynamic_levels() -> Floats:
    """List the 256 levels of the dynamic 8-bit type: seven decades, the larger the finer.

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

    bitsandbytes searches approximately on the CPU: there, about one scale in 200 gets the second
    nearest level.

    Source: QLoRA, arXiv 2305.14314, section 3, "Double Quantization".
    """
    count = len(scales)
    # In double precision, the order of the sum does not change the mean in fp32.
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
