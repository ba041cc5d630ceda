"""An update as bytes on the wire: a header, which coordinates are sent, and their coded values.

The order is fixed: select, then quantise the values kept. Everything is little-endian:

    magic "SFLU", version, codec, index kind, 0 (a byte each); size, count (8 bytes each);
    CRC-32 of all that and of all that follows; the index section; the values as coded.

The length of a payload follows from its size, count and codec alone. With ``count`` of ``size``
coordinates, the index section is the shorter one (the first, if equal) of

- a bitmap of ceil(size / 8) bytes, lowest bit first, or
- Elias-Fano: the b lowest bits of the indices, one plane of ceil(count / 8) bytes for each bit,
  then in ceil((count + ((size - 1) >> b)) / 8) bytes a one at place (index >> b) + rank for each
  index, for the b that is shortest (the smallest such b). Source: Elias, J. ACM 21 (1974), 246.

It is empty when all coordinates are sent.
"""

import struct
import zlib
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling_fl.methods.wire.codecs import CODECS, check_vector
from scaling_fl.methods.wire.nf4 import Bytes

Indices = NDArray[np.int64]

VERSION = 1
_MAGIC = b"SFLU"
_FIELDS = struct.Struct("<4sBBBBQQ")
_CRC = struct.Struct("<I")
HEADER_BYTES = _FIELDS.size + _CRC.size
_CODEC_IDS = {"none": 0, "fp16": 1, "bf16": 2, "int8": 3, "nf4": 4, "nf4_double": 5}
_CODEC_NAMES = {number: name for name, number in _CODEC_IDS.items()}
_DENSE, _BITMAP, _ELIAS_FANO = 0, 1, 2


class PayloadError(ValueError):
    """A payload that was not made by ``encode`` for a vector of this size, or was damaged."""


class _Layout(NamedTuple):
    """How the index section is made, which size and count decide."""

    kind: int
    low_bits: int
    num_bytes: int


def index_bits(size: int, kept: int) -> int:
    """Count the bits that say which ``kept`` of ``size`` coordinates are sent."""
    return 8 * _layout(size, kept).num_bytes


def payload_size(size: int, kept: int | None, codec: str) -> int:
    """Count the bytes of ``encode`` for ``kept`` (None: all) of ``size`` coordinates.

    Raises:
        ValueError: when the codec is unknown, or more is kept than there is.
    """
    _check_codec(codec)
    count = size if kept is None else kept
    if not 0 <= count <= size:
        raise ValueError(f"of {size} coordinates, 0 to {size} can be kept, got {count}.")
    return HEADER_BYTES + _layout(size, count).num_bytes + CODECS[codec].num_bytes(count)


def encode(vector: Tensor, *, codec: str = "none", indices: Tensor | None = None) -> bytes:
    """Encode a 1-D fp32 CPU vector, or only the coordinates at ascending int64 ``indices``.

    Raises:
        ValueError: when the codec is unknown, the vector or the indices are not as said, or a
            value to be sent is not finite.
    """
    _check_codec(codec)
    check_vector(vector)
    size = vector.numel()
    places = None if indices is None else _checked_indices(indices, size)
    count = size if places is None else len(places)
    layout = _layout(size, count)
    section: Bytes = np.empty(0, dtype=np.uint8)
    values = vector
    if places is not None and layout.kind != _DENSE:
        section = _encode_indices(places, size, layout)
        values = vector.detach()[torch.from_numpy(places)]
    fields = _FIELDS.pack(_MAGIC, VERSION, _CODEC_IDS[codec], layout.kind, 0, size, count)
    body = (section.data, CODECS[codec].encode(values).data)
    return b"".join((fields, _CRC.pack(_crc(fields, *body)), *body))


def decode(payload: bytes, *, size: int, out: Tensor | None = None) -> Tensor:
    """Decode to the dense fp32 vector of ``size`` coordinates, with zeros where none was sent.

    It goes into ``out``, a contiguous one on the CPU, if given. Nothing is allocated before the
    header agrees with ``size`` and with the payload's length.

    Raises:
        PayloadError: when the payload is not exactly what ``encode`` makes for this size; ``out``
            may then hold anything.
    """
    codec, count = _read_header(payload, size)
    layout = _layout(size, count)
    raw: Bytes = np.frombuffer(payload, dtype=np.uint8)[HEADER_BYTES:]
    try:
        dense = out if layout.kind == _DENSE else None
        values = CODECS[codec].decode(raw[layout.num_bytes :], count, dense)
    except ValueError as error:
        raise PayloadError(f"the payload's values are damaged: {error}") from error
    if layout.kind == _DENSE:
        return values
    indices = _decode_indices(raw[: layout.num_bytes], size, count, layout)
    vector = torch.zeros(size) if out is None else out.zero_()
    vector[torch.from_numpy(indices)] = values
    return vector


def decode_indices(payload: bytes, *, size: int) -> Tensor | None:
    """Decode which coordinates a payload carries: ascending int64, or None for all of them.

    Raises:
        PayloadError: the payload is not what ``encode`` makes for a vector of ``size``.
    """
    _, count = _read_header(payload, size)
    layout = _layout(size, count)
    if layout.kind == _DENSE:
        return None
    raw = np.frombuffer(payload, np.uint8, offset=HEADER_BYTES)
    return torch.from_numpy(_decode_indices(raw[: layout.num_bytes], size, count, layout))


def _read_header(payload: bytes, size: int) -> tuple[str, int]:
    """Check all that can be checked without decoding; return the codec and the count."""
    if len(payload) < HEADER_BYTES:
        raise PayloadError(f"a payload has {HEADER_BYTES} bytes or more, got {len(payload)}.")
    magic, version, number, kind, zero, found, count = _FIELDS.unpack_from(payload)
    if magic != _MAGIC:
        raise PayloadError(f"a payload starts with {_MAGIC!r}, got {magic!r}.")
    if version != VERSION:
        raise PayloadError(f"only version {VERSION} of payloads is known, got {version}.")
    if number not in _CODEC_NAMES:
        raise PayloadError(f"the payload's codec must be one of {_CODEC_NAMES}, got {number}.")
    if found != size:
        raise PayloadError(f"the payload is of a vector of {found}, expected one of {size}.")
    if count > size:
        raise PayloadError(f"the payload claims {count} of {size} coordinates.")
    if (kind, zero) != (_layout(size, count).kind, 0):
        raise PayloadError(f"the payload's indices are not as {count} of {size} are coded.")
    codec = _CODEC_NAMES[number]
    expected = payload_size(size, count, codec)
    if len(payload) != expected:
        raise PayloadError(f"the payload must have {expected} bytes, got {len(payload)}.")
    fields, body = payload[: _FIELDS.size], memoryview(payload)[HEADER_BYTES:]
    if _CRC.unpack_from(payload, _FIELDS.size) != (_crc(fields, body),):
        raise PayloadError("the payload's checksum is wrong: it was damaged on its way.")
    return codec, count


def _check_codec(codec: str) -> None:
    if codec not in _CODEC_IDS:
        raise ValueError(f"codec must be one of {', '.join(_CODEC_IDS)}, got {codec!r}.")


def _crc(*parts: bytes | memoryview) -> int:
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc


def _checked_indices(indices: Tensor, size: int) -> Indices:
    if indices.dtype != torch.int64 or indices.dim() != 1 or indices.device.type != "cpu":
        raise ValueError("the indices must be a 1-D int64 tensor on the CPU.")
    places: Indices = indices.numpy()
    if len(places) and (places[0] < 0 or places[-1] >= size or (np.diff(places) <= 0).any()):
        raise ValueError(f"the indices must ascend strictly, from 0 to below {size}.")
    return places


def _layout(size: int, count: int) -> _Layout:
    """Choose the shorter index section, by the formula at the head of this file."""
    if count == size:
        return _Layout(_DENSE, 0, 0)
    lengths = [
        bits * _bytes_for(count) + _bytes_for(count + ((size - 1) >> bits))
        for bits in range(size.bit_length() + 1)
    ]
    shortest = min(lengths)
    if _bytes_for(size) <= shortest:
        return _Layout(_BITMAP, 0, _bytes_for(size))
    return _Layout(_ELIAS_FANO, lengths.index(shortest), shortest)


def _bytes_for(bits: int) -> int:
    return -(-bits // 8)


def _encode_indices(indices: Indices, size: int, layout: _Layout) -> Bytes:
    if layout.kind == _BITMAP:
        return _pack_ones(indices, size)
    low = layout.low_bits
    planes = [_pack(((indices >> bit) & 1).astype(np.uint8)) for bit in range(low)]
    ones = (indices >> low) + np.arange(len(indices))
    return np.concatenate([*planes, _pack_ones(ones, len(indices) + ((size - 1) >> low))])


def _decode_indices(section: Bytes, size: int, count: int, layout: _Layout) -> Indices:
    """Decode and check that there are ``count`` different indices below ``size``, ascending."""
    if layout.kind == _BITMAP:
        return _unpack_ones(section, size, count)
    low, plane = layout.low_bits, _bytes_for(count)
    ones = _unpack_ones(section[low * plane :], count + ((size - 1) >> low), count)
    indices: Indices = (ones - np.arange(count)) << low
    for bit in range(low):
        indices |= _unpack(section[bit * plane : (bit + 1) * plane], count).astype(np.int64) << bit
    if count and (indices[-1] >= size or (np.diff(indices) <= 0).any()):
        raise PayloadError(f"the payload's indices do not ascend from 0 to below {size}.")
    return indices


def _pack(bits: Bytes) -> Bytes:
    return np.packbits(bits, bitorder="little")


def _unpack(packed: Bytes, num_bits: int) -> Bytes:
    bits = np.unpackbits(packed, bitorder="little")
    if bits[num_bits:].any():
        raise PayloadError("the payload's index section has bits set beyond its end.")
    return bits[:num_bits]


def _pack_ones(ones: Indices, num_bits: int) -> Bytes:
    bits = np.zeros(num_bits, dtype=np.uint8)
    bits[ones] = 1
    return _pack(bits)


def _unpack_ones(packed: Bytes, num_bits: int, count: int) -> Indices:
    ones = np.flatnonzero(_unpack(packed, num_bits).view(np.bool_))
    if len(ones) != count:
        raise PayloadError(f"the payload's index section names {len(ones)} and not {count}.")
    return ones
