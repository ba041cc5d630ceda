"""A vector as bytes on the wire: a header, the indices of the coordinates sent, and their values.

The coordinates are selected first; then their values are encoded. All numbers are little-endian:

    magic "SFLU", version, codec, index kind, 0 (a byte each); size, count (8 bytes each);
    CRC-32 of all other bytes; the index section; the code of the values.

The length of a payload depends on size, count and codec alone. When ``count`` of ``size``
coordinates are sent, the index section is the shorter one (the first, if equal) of

- a bitmap: ceil(size / 8) bytes, lowest bit first;
- Elias-Fano: b planes of ceil(count / 8) bytes, plane i with bit i of every index; then
  ceil((count + ((size - 1) >> b)) / 8) bytes in which bit (index >> b) + rank is set for every
  index, rank being its position. b is the number with the shortest section (of equal ones, the
  smallest). Source: Elias, J. ACM 21 (1974), 246.

The index section is empty when all coordinates are sent.
"""

import struct
import zlib
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling_fl.methods.wire.codecs import CODECS, Codec, check_vector
from scaling_fl.methods.wire.nf4 import Bytes

Indices = NDArray[np.int64]

VERSION = 1
_MAGIC = b"SFLU"
_FIELDS = struct.Struct("<4sBBBBQQ")
_CRC = struct.Struct("<I")
HEADER_BYTES = _FIELDS.size + _CRC.size
_CODEC_IDS = {"none": 0, "fp16": 1, "bf16": 2, "int8": 3, "nf4": 4, "nf4_double": 5}
_OWN_ID = 255  # a codec of the user, which both ends must know
_CODECS_BY_ID = {number: CODECS[name] for name, number in _CODEC_IDS.items()}
_DENSE, _BITMAP, _ELIAS_FANO = 0, 1, 2


class PayloadError(ValueError):
    """The bytes are damaged, or ``encode`` did not make them for a vector of this size."""


class _IndexSection(NamedTuple):
    """The format of the index section; it follows from size and count."""

    kind: int
    low_bits: int
    num_bytes: int


def index_bits(size: int, kept: int) -> int:
    """Count the bits of the index section when ``kept`` of ``size`` coordinates are sent."""
    return 8 * _layout(size, kept).num_bytes


def payload_size(size: int, kept: int | None, codec: str | Codec) -> int:
    """Count the bytes of a payload with ``kept`` (None: all) of ``size`` coordinates.

    Raises:
        ValueError: the codec is unknown, or ``kept`` is not in [0, size].
    """
    _, found = _identified(codec)
    count = size if kept is None else kept
    if not 0 <= count <= size:
        raise ValueError(f"a payload must keep 0 to {size} of {size} coordinates, got {count}.")
    return HEADER_BYTES + _layout(size, count).num_bytes + found.num_bytes(count)


def encode(vector: Tensor, *, codec: str | Codec = "none", indices: Tensor | None = None) -> bytes:
    """Encode a 1-D fp32 CPU vector, or only the coordinates at ascending int64 ``indices``.

    ``codec`` is the name of one, or one of the user.

    Raises:
        ValueError: the codec is unknown, the vector or the indices have another type or order, or a
            value that is sent is not finite.
    """
    number, found = _identified(codec)
    check_vector(vector)
    size = vector.numel()
    sent = None if indices is None else _checked_indices(indices, size)
    count = size if sent is None else len(sent)
    layout = _layout(size, count)
    section: Bytes = np.empty(0, dtype=np.uint8)
    values = vector
    if sent is not None and layout.kind != _DENSE:
        section = _encode_indices(sent, size, layout)
        values = vector.detach()[torch.from_numpy(sent)]
    fields = _FIELDS.pack(_MAGIC, VERSION, number, layout.kind, 0, size, count)
    body = (section.data, found.encode(values).data)
    return b"".join((fields, _CRC.pack(_crc(fields, *body)), *body))


def decode(
    payload: bytes, *, size: int, out: Tensor | None = None, own: Codec | None = None
) -> Tensor:
    """Decode to the fp32 vector of ``size`` coordinates, 0 where no value was sent.

    ``own`` is the codec of the user, if the payload may be of one. The vector is written to ``out``
    (contiguous, on the CPU), if given. No memory is allocated before the header is checked against
    ``size`` and against the length of the payload.

    Raises:
        PayloadError: ``encode`` does not make such a payload for this size. ``out`` may then hold
            anything.
    """
    codec, count = _read_header(payload, size, own)
    layout = _layout(size, count)
    raw: Bytes = np.frombuffer(payload, dtype=np.uint8)[HEADER_BYTES:]
    try:
        dense = out if layout.kind == _DENSE else None
        values = codec.decode(raw[layout.num_bytes :], count, dense)
    except ValueError as error:
        raise PayloadError(f"the values of the payload are damaged: {error}") from error
    if layout.kind == _DENSE:
        return values
    indices = _decode_indices(raw[: layout.num_bytes], size, count, layout)
    vector = torch.zeros(size) if out is None else out.zero_()
    vector[torch.from_numpy(indices)] = values
    return vector


def decode_indices(payload: bytes, *, size: int, own: Codec | None = None) -> Tensor | None:
    """Decode the indices of the coordinates that a payload carries: ascending int64; None: all.

    Raises:
        PayloadError: ``encode`` does not make such a payload for this size.
    """
    _, count = _read_header(payload, size, own)
    layout = _layout(size, count)
    if layout.kind == _DENSE:
        return None
    raw = np.frombuffer(payload, np.uint8, offset=HEADER_BYTES)
    return torch.from_numpy(_decode_indices(raw[: layout.num_bytes], size, count, layout))


def _read_header(payload: bytes, size: int, own: Codec | None) -> tuple[Codec, int]:
    """Check the header, the length and the checksum; return the codec and the count."""
    if len(payload) < HEADER_BYTES:
        raise PayloadError(
            f"a payload must have at least {HEADER_BYTES} bytes, got {len(payload)}."
        )
    magic, version, number, kind, zero, found, count = _FIELDS.unpack_from(payload)
    if magic != _MAGIC:
        raise PayloadError(f"a payload must start with {_MAGIC!r}, got {magic!r}.")
    if version != VERSION:
        raise PayloadError(f"the version of a payload must be {VERSION}, got {version}.")
    codec = own if number == _OWN_ID else _CODECS_BY_ID.get(number)
    if codec is None:
        raise PayloadError(f"the codec of a payload must be one of {_CODEC_IDS}, got {number}.")
    if found != size:
        raise PayloadError(f"the payload must have a vector of size {size}, got {found}.")
    if count > size:
        raise PayloadError(f"the payload must have at most {size} coordinates, got {count}.")
    if (kind, zero) != (_layout(size, count).kind, 0):
        raise PayloadError(f"the index section must have the format for {count} of {size}.")
    expected = payload_size(size, count, codec)
    if len(payload) != expected:
        raise PayloadError(f"the payload must have {expected} bytes, got {len(payload)}.")
    fields, body = payload[: _FIELDS.size], memoryview(payload)[HEADER_BYTES:]
    if _CRC.unpack_from(payload, _FIELDS.size) != (_crc(fields, body),):
        raise PayloadError("the checksum of the payload is wrong: the payload was damaged.")
    return codec, count


def _identified(codec: str | Codec) -> tuple[int, Codec]:
    """Return the number of a codec on the wire, and the codec."""
    if isinstance(codec, Codec):
        return _OWN_ID, codec
    if codec not in _CODEC_IDS:
        raise ValueError(f"codec must be one of {', '.join(_CODEC_IDS)}, got {codec!r}.")
    return _CODEC_IDS[codec], CODECS[codec]


def _crc(*pieces: bytes | memoryview) -> int:
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    return crc


def _checked_indices(indices: Tensor, size: int) -> Indices:
    if indices.dtype != torch.int64 or indices.dim() != 1 or indices.device.type != "cpu":
        raise ValueError("the indices must be a 1-D int64 tensor on the CPU.")
    checked: Indices = indices.numpy()
    if len(checked) and (checked[0] < 0 or checked[-1] >= size or (np.diff(checked) <= 0).any()):
        raise ValueError(f"the indices must be strictly ascending and in [0, {size - 1}].")
    return checked


def _layout(size: int, count: int) -> _IndexSection:
    """Choose the shorter index section, by the formulas at the top of this file."""
    if count == size:
        return _IndexSection(_DENSE, 0, 0)
    lengths = [
        bits * _bytes_for(count) + _bytes_for(count + ((size - 1) >> bits))
        for bits in range(size.bit_length() + 1)
    ]
    shortest = min(lengths)
    if _bytes_for(size) <= shortest:
        return _IndexSection(_BITMAP, 0, _bytes_for(size))
    return _IndexSection(_ELIAS_FANO, lengths.index(shortest), shortest)


def _bytes_for(bits: int) -> int:
    return -(-bits // 8)


def _encode_indices(indices: Indices, size: int, layout: _IndexSection) -> Bytes:
    if layout.kind == _BITMAP:
        return _pack_ones(indices, size)
    low = layout.low_bits
    planes = [_pack(((indices >> bit) & 1).astype(np.uint8)) for bit in range(low)]
    ones = (indices >> low) + np.arange(len(indices))
    return np.concatenate([*planes, _pack_ones(ones, len(indices) + ((size - 1) >> low))])


def _decode_indices(section: Bytes, size: int, count: int, layout: _IndexSection) -> Indices:
    """Decode ``count`` indices; check that they are strictly ascending and below ``size``."""
    if layout.kind == _BITMAP:
        return _unpack_ones(section, size, count)
    low, plane = layout.low_bits, _bytes_for(count)
    ones = _unpack_ones(section[low * plane :], count + ((size - 1) >> low), count)
    indices: Indices = (ones - np.arange(count)) << low
    for bit in range(low):
        indices |= _unpack(section[bit * plane : (bit + 1) * plane], count).astype(np.int64) << bit
    if count and (indices[-1] >= size or (np.diff(indices) <= 0).any()):
        raise PayloadError(f"the indices must be strictly ascending and in [0, {size - 1}].")
    return indices


def _pack(bits: Bytes) -> Bytes:
    return np.packbits(bits, bitorder="little")


def _unpack(packed: Bytes, num_bits: int) -> Bytes:
    bits = np.unpackbits(packed, bitorder="little")
    if bits[num_bits:].any():
        raise PayloadError("the bits after the end of the index section must be 0.")
    return bits[:num_bits]


def _pack_ones(ones: Indices, num_bits: int) -> Bytes:
    bits = np.zeros(num_bits, dtype=np.uint8)
    bits[ones] = 1
    return _pack(bits)


def _unpack_ones(packed: Bytes, num_bits: int, count: int) -> Indices:
    ones = np.flatnonzero(_unpack(packed, num_bits).view(np.bool_))
    if len(ones) != count:
        raise PayloadError(f"the index section must have {count} indices, got {len(ones)}.")
    return ones
