"""Codecs: how the values of an update are rounded on the wire, and their bytes, little-endian.

The length of a code depends on the number of values alone. decode(encode(x)) is a fixed point of
every codec: encoding it once more changes nothing (exceptions: ``nf4_double`` rounds its scales
each time; ``nf4.quantise`` names another).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from scaling_fl.methods.wire import nf4
from scaling_fl.methods.wire.nf4 import (
    BLOCK,
    SCALE_BLOCK,
    Bytes,
    CompressedScales,
    Floats,
    num_blocks,
)

Buffer = bytes | bytearray | memoryview | Bytes


@dataclass(frozen=True)
class Codec:
    """How 1-D fp32 tensors on the CPU become bytes and back.

    A codec of one's own, which sends the sign of each value and one scale (arXiv 1802.04434), is
    a name of a module such as

        def encode(values):
            scale = values.abs().mean().reshape(1).numpy()
            signs = np.packbits(values.numpy() > 0, bitorder="little")
            return np.concatenate([scale.view(np.uint8), signs])

        def decode(raw, out):
            scale, signs = raw[:4].view(np.float32)[0], np.unpackbits(raw[4:], bitorder="little")
            out.copy_(torch.from_numpy(np.where(signs[: out.numel()], scale, -scale)))

        signs = Codec(encode, decode, lambda count: 4 + (count + 7) // 8)
    """

    _encode: Callable[[Tensor], Bytes]
    """Finite values -> their code, uint8."""
    _decode: Callable[[Bytes, Tensor], None]
    """(code, values to be filled) -> None; raises ValueError if a value is not finite."""
    num_bytes: Callable[[int], int]
    """Number of values -> the exact length of their code, whatever the values are."""
    error: float | None = None
    """How far a value is off at most, as a share of the largest magnitude; None: not stated."""
    breaks: Mapping[str, str] = field(default_factory=dict, hash=False)
    """The laws (``conformance.codec_laws``) that the codec breaks by its nature -> why."""

    def encode(self, values: Tensor) -> Bytes:
        """Encode the values; the bytes may be in the memory of ``values``.

        Raises:
            ValueError: a value is not finite, or the tensor is not 1-D fp32 on the CPU.
        """
        check_vector(values)
        values = values.detach().contiguous()
        if not _is_finite(values):
            raise ValueError("a value to encode is not finite; leave a diverged update out.")
        code = self._encode(values)
        if code.nbytes != self.num_bytes(values.numel()):
            raise ValueError(
                f"{values.numel()} values must take {self.num_bytes(values.numel())} bytes by the "
                f"codec's num_bytes, and its code has {code.nbytes}."
            )
        return code

    def decode(self, buffer: Buffer, count: int, out: Tensor | None = None) -> Tensor:
        """Decode ``count`` values into ``out`` (contiguous), or else into a new tensor.

        With ``out``, decoding takes half the time: new memory costs more than the values in it.

        Raises:
            ValueError: the buffer has another length than ``count`` values take, or a value is not
                finite. ``out`` may then hold anything.
        """
        raw: Bytes = np.frombuffer(buffer, dtype=np.uint8)
        expected = self.num_bytes(count)
        if len(raw) != expected:
            raise ValueError(f"{count} values must take {expected} bytes, got {len(raw)}.")
        if out is None:
            out = torch.from_numpy(np.empty(count, dtype=np.float32))  # numpy asks for large pages
        check_vector(out)
        if out.numel() != count:
            raise ValueError(f"out must have {count} values, got {out.numel()}.")
        self._decode(raw, out)
        return out

    def with_finite_values(self) -> "Codec":
        """Return a codec that refuses what this one decodes to if a value is not finite."""

        def decode(raw: Bytes, out: Tensor) -> None:
            self._decode(raw, out)
            _check_finite(out)

        return replace(self, _decode=decode)


def check_vector(values: Tensor) -> None:
    """Raise ValueError unless the tensor is 1-D fp32 on the CPU."""
    if values.dtype != torch.float32 or values.dim() != 1 or values.device.type != "cpu":
        raise ValueError(
            "the values must be a 1-D fp32 tensor on the CPU, got "
            f"{values.dtype} {tuple(values.shape)} on {values.device}."
        )


def _is_finite(values: Tensor) -> bool:
    if values.numel() == 0:
        return True
    low, high = torch.aminmax(values)  # one pass without a mask; with a NaN, both are NaN
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _check_finite(values: Tensor) -> None:
    if not _is_finite(values):
        raise ValueError("a decoded value or scale is not finite.")


def _read_floats(raw: Bytes) -> Floats:
    """Copy fp32 numbers out of bytes that need not be aligned in memory."""
    floats = raw.view("<f4").astype(np.float32)
    _check_finite(torch.from_numpy(floats))
    return floats


def _decode_fp32(raw: Bytes, out: Tensor) -> None:
    out.numpy()[:] = raw.view("<f4")
    _check_finite(out)


def _cast(dtype: torch.dtype, width: int, breaks: Mapping[str, str] | None = None) -> Codec:
    """Round to the nearest finite value of a shorter float type, ties to even."""
    limit, half_a_step = torch.finfo(dtype).max, torch.finfo(dtype).eps / 2

    def encode(values: Tensor) -> Bytes:
        return values.clamp(-limit, limit).to(dtype).view(torch.uint8).numpy()

    def decode(raw: Bytes, out: Tensor) -> None:
        words = torch.from_numpy(raw.view(np.int16).copy())
        _check_finite(out.copy_(words.view(dtype)))

    return Codec(encode, decode, lambda count: width * count, half_a_step, breaks or {})


def _encode_int8(values: Tensor) -> Bytes:
    """Write the scale of each block, max|x|, and then the codes, round(127 * x / scale)."""
    count = values.numel()
    # The zeros that fill up the last block change no scale.
    rows = torch.nn.functional.pad(values, (0, -count % BLOCK)).view(-1, BLOCK)
    scales = rows.abs().amax(dim=1)
    scaled = rows / torch.where(scales > 0, scales, 1.0)[:, None]
    codes = scaled.mul_(127.0).round_().to(torch.int8).view(torch.uint8)
    return np.concatenate([_bytes(scales.numpy()), codes.view(-1)[:count].numpy()])


def _decode_int8(raw: Bytes, out: Tensor) -> None:
    """Decode to (code / 127) * scale, which restores the largest value of a block exactly.

    Therefore a second encoding changes nothing. With code * (scale / 127), values would drift.
    """
    head = 4 * num_blocks(out.numel())
    # The encoder never writes -128; read as -127, this code cannot overflow.
    np.maximum(raw[head:].view(np.int8), -127, out=out.numpy())
    nf4.scale_blocks(out.div_(127.0), torch.from_numpy(_read_floats(raw[:head])))


def _encode_nf4(values: Tensor) -> Bytes:
    codes, scales = nf4.quantise(values)
    return np.concatenate([_bytes(scales), codes])


def _decode_nf4(raw: Bytes, out: Tensor) -> None:
    head = 4 * num_blocks(out.numel())
    nf4.dequantise(raw[head:], _read_floats(raw[:head]), out)


def _encode_nf4_double(values: Tensor) -> Bytes:
    """Write the compressed scales (offset, magnitudes, codes) and then the codes of the values."""
    codes, scales = nf4.quantise(values)
    compressed = nf4.compress_scales(scales)
    floats = np.concatenate([[compressed.offset], compressed.absmax])
    return np.concatenate([_bytes(floats), compressed.codes, codes])


def _decode_nf4_double(raw: Bytes, out: Tensor) -> None:
    blocks = num_blocks(out.numel())
    head = 4 + 4 * num_blocks(blocks, SCALE_BLOCK)
    floats = _read_floats(raw[:head])
    compressed = CompressedScales(floats[0], floats[1:], raw[head : head + blocks])
    scales = nf4.expand_scales(compressed)
    _check_finite(torch.from_numpy(scales))
    nf4.dequantise(raw[head + blocks :], scales, out)


def _nf4_double_bytes(count: int) -> int:
    blocks = num_blocks(count)
    return 4 + 4 * num_blocks(blocks, SCALE_BLOCK) + blocks + (count + 1) // 2


def _bytes(floats: Floats) -> Bytes:
    return floats.astype("<f4", copy=False).view(np.uint8)


CODECS: dict[str, Codec] = {
    "none": Codec(
        lambda values: _bytes(values.numpy()), _decode_fp32, lambda count: 4 * count, error=0.0
    ),
    "fp16": _cast(torch.float16, 2, {"magnitude": "it holds numbers from 6e-8 to 65504"}),
    "bf16": _cast(torch.bfloat16, 2),
    "int8": Codec(
        _encode_int8, _decode_int8, lambda count: 4 * num_blocks(count) + count, error=0.5 / 127
    ),
    "nf4": Codec(
        _encode_nf4,
        _decode_nf4,
        lambda count: 4 * num_blocks(count) + (count + 1) // 2,
        error=0.152,  # half of the largest gap between two levels
    ),
    "nf4_double": Codec(
        _encode_nf4_double,
        _decode_nf4_double,
        _nf4_double_bytes,
        error=0.16,
        breaks={"again": "the scales are rounded each time"},
    ),
}
