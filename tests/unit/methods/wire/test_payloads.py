"""Payloads carry what they promise in exactly the bytes they promise, and nothing hostile."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st

from scaling_fl.methods.wire.codecs import CODECS
from scaling_fl.methods.wire.payloads import (
    HEADER_BYTES,
    PayloadError,
    decode,
    encode,
    index_bits,
    payload_size,
)
from scaling_fl.methods.wire.sparsity import count_kept, top_k

NAMES = sorted(CODECS)
names = st.sampled_from(NAMES)
FIELDS = HEADER_BYTES - 4


def normal(size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def signed(fields: bytes, body: bytes) -> bytes:
    """Make the checksum right, as a hostile sender would."""
    return fields + struct.pack("<I", zlib.crc32(fields + body)) + body


@st.composite
def selections(draw: st.DrawFn) -> tuple[int, list[int]]:
    """Draw a size and which of its coordinates are sent: often few or many, often at the ends."""
    size = draw(st.integers(1, 3000))
    few = st.sets(st.integers(0, size - 1), max_size=40)
    chosen = draw(few)
    if draw(st.booleans()):
        chosen = set(range(size)) - chosen
    return size, sorted(chosen)


def expected_dense(vector: torch.Tensor, indices: torch.Tensor, codec: str) -> torch.Tensor:
    dense = torch.zeros_like(vector)
    kept = vector[indices]
    dense[indices] = CODECS[codec].decode(CODECS[codec].encode(kept), len(kept))
    return dense


def test_every_codec_has_a_number_of_its_own() -> None:
    assert len({encode(normal(8), codec=name)[5] for name in CODECS}) == len(CODECS)
    assert HEADER_BYTES <= 32


@given(selections(), names, st.integers(0, 9))
@example((1, []), "nf4_double", 0)
@example((1, [0]), "nf4", 0)
def test_the_values_kept_arrive_at_their_places(
    selection: tuple[int, list[int]], codec: str, seed: int
) -> None:
    size, chosen = selection
    vector, indices = normal(size, seed), torch.tensor(chosen, dtype=torch.int64)
    payload = encode(vector, codec=codec, indices=indices)
    assert len(payload) == payload_size(size, len(chosen), codec)
    expected = expected_dense(vector, indices, codec)
    assert torch.equal(decode(payload, size=size), expected)
    at_hand = torch.full((size,), 7.0)
    assert decode(payload, size=size, out=at_hand) is at_hand
    assert torch.equal(at_hand, expected)


@pytest.mark.parametrize("codec", NAMES)
@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1000])
def test_a_dense_vector_arrives_without_indices(codec: str, size: int) -> None:
    vector = normal(size)
    payload = encode(vector, codec=codec)
    assert len(payload) == payload_size(size, None, codec) == payload_size(size, size, codec)
    assert len(payload) == HEADER_BYTES + CODECS[codec].num_bytes(size)
    assert torch.equal(
        decode(payload, size=size), expected_dense(vector, torch.arange(size), codec)
    )
    assert encode(vector, codec=codec, indices=torch.arange(size)) == payload


@pytest.mark.parametrize("codec", NAMES)
@pytest.mark.parametrize("density", [0.001, 0.01, 0.1, 0.25, 0.5])
def test_top_k_arrives(codec: str, density: float) -> None:
    vector = normal(20_011)
    indices = top_k(vector, count_kept(20_011, density))
    payload = encode(vector, codec=codec, indices=indices)
    assert torch.equal(decode(payload, size=20_011), expected_dense(vector, indices, codec))


def test_what_was_decoded_encodes_to_the_same_bytes() -> None:
    vector = normal(5000)
    indices = top_k(vector, 500)
    payload = encode(vector, codec="nf4", indices=indices)
    assert encode(decode(payload, size=5000), codec="nf4", indices=indices) == payload


@given(st.integers(1, 10**12), st.data())
def test_indices_take_the_shorter_form_and_are_near_their_entropy(
    size: int, data: st.DataObject
) -> None:
    kept = data.draw(st.integers(0, size))
    assert index_bits(size, kept) <= 8 * -(-size // 8)
    share = kept / size
    if 0 < share < 0.5:
        entropy = -size * (share * np.log2(share) + (1 - share) * np.log2(1 - share))
        assert index_bits(size, kept) <= min(1.25 * size, entropy + 0.75 * kept) + 8 * 64


@pytest.mark.parametrize(
    ("density", "bits"), [(0.001, 11.95), (0.01, 8.56), (0.1, 5.25), (0.5, 2.0), (1.0, 0.0)]
)
def test_bits_per_index_kept(density: float, bits: float) -> None:
    size = 22_000_000
    kept = count_kept(size, density)
    assert index_bits(size, kept) / kept == pytest.approx(bits, abs=0.01)


def test_mean_bits_of_a_dense_parameter() -> None:
    size = 22_000_000
    header = 8 * HEADER_BYTES / size
    assert 8 * payload_size(size, None, "nf4") / size == pytest.approx(4.5 + header)
    assert 8 * payload_size(size, None, "nf4_double") / size < 4.2


def test_the_format_of_version_1_is_frozen() -> None:
    vector = torch.zeros(100)
    vector[[3, 50, 99]] = torch.tensor([1.0, -2.0, 0.5])
    payload = encode(vector, codec="fp16", indices=torch.tensor([3, 50, 99]))
    header = "53464c5501010200640000000000000003000000000000003f25a957"
    assert payload.hex() == header + "0507008140003c00c00038"


def test_a_checksum_covers_the_header_too() -> None:
    payload = bytearray(encode(normal(100), codec="fp16"))
    payload[5] = encode(normal(1), codec="bf16")[5]  # a codec of the same length
    with pytest.raises(PayloadError, match="checksum"):
        decode(bytes(payload), size=100)


@pytest.mark.parametrize("codec", NAMES)
@given(data=st.data())
def test_a_damaged_payload_is_refused(codec: str, data: st.DataObject) -> None:
    sparse = data.draw(st.booleans())
    payload = bytearray(
        encode(normal(300), codec=codec, indices=torch.arange(0, 300, 11) if sparse else None)
    )
    place = data.draw(st.integers(0, len(payload) - 1))
    payload[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PayloadError):
        decode(bytes(payload), size=300)


@pytest.mark.parametrize("codec", NAMES)
@given(data=st.data())
def test_a_cut_or_extended_payload_is_refused(codec: str, data: st.DataObject) -> None:
    payload = encode(normal(300), codec=codec, indices=torch.arange(0, 300, 11))
    end = data.draw(st.integers(0, len(payload) - 1))
    more = data.draw(st.binary(min_size=1, max_size=70))
    for changed in (payload[:end], payload + more, more + payload, payload[:end] + more):
        if changed == payload:
            continue
        with pytest.raises(PayloadError):
            decode(changed, size=300)


@given(st.binary(max_size=200), st.integers(0, 300))
def test_random_bytes_are_refused(payload: bytes, size: int) -> None:
    with pytest.raises(PayloadError):
        decode(payload, size=size)


@given(
    st.sampled_from([1, 2, 64, 300]),
    names,
    st.integers(0, 3),
    st.integers(0, 300),
    st.binary(max_size=400),
)
def test_a_hostile_sender_gets_an_error_or_finite_values(
    size: int, codec: str, kind: int, count: int, body: bytes
) -> None:
    """The checksum is right and so, mostly, is the length: only the contents are anything."""
    assume(count <= size)
    length = payload_size(size, count, codec) - HEADER_BYTES
    body = (body * (length // max(1, len(body)) + 1))[:length].ljust(length, b"\0")
    honest = encode(torch.zeros(size), codec=codec, indices=torch.arange(count))
    for sent in (kind, honest[6]):
        header = b"SFLU" + bytes([1, honest[5], sent, 0])
        payload = signed(header + struct.pack("<QQ", size, count), body)
        try:
            vector = decode(payload, size=size)
        except PayloadError:
            continue
        assert vector.shape == (size,)
        assert bool(vector.isfinite().all())
        assert int(vector.count_nonzero()) <= count


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, b"GIF8", "must start with"),
        (4, b"\x02", "version"),
        (5, b"\xc8", "codec of a payload must be"),
        (6, b"\x01", "format for 28 of 300"),
        (7, b"\x01", "format for 28 of 300"),
        (8, struct.pack("<Q", 301), "size 300, got 301"),
        (8, struct.pack("<Q", 2**60), f"size 300, got {2**60}"),
        (16, struct.pack("<Q", 301), "at most 300 coordinates, got 301"),
        (16, struct.pack("<Q", 2**64 - 1), "at most 300 coordinates"),
        (16, struct.pack("<Q", 27), "must have"),
    ],
)
def test_a_foreign_header_is_refused_in_words(place: int, value: bytes, message: str) -> None:
    payload = encode(normal(300), indices=torch.arange(0, 300, 11))
    fields = bytearray(payload[:FIELDS])
    fields[place : place + len(value)] = value
    with pytest.raises(PayloadError, match=message):
        decode(signed(bytes(fields), payload[HEADER_BYTES:]), size=300)


def test_a_payload_of_another_size_is_refused() -> None:
    with pytest.raises(PayloadError, match="a vector of size 11, got 10"):
        decode(encode(normal(10)), size=11)


@pytest.mark.parametrize(("size", "kept"), [(13, 5), (1000, 10)])
def test_index_sections_that_do_not_fit_are_refused(size: int, kept: int) -> None:
    """A bitmap (13 coordinates) and Elias-Fano (1000): no ones, all ones, and a one too far."""
    payload = encode(normal(size), indices=torch.arange(kept))
    length = index_bits(size, kept) // 8
    fields, values = payload[:FIELDS], payload[HEADER_BYTES + length :]
    section = payload[HEADER_BYTES:][:length]
    beyond = section[:-1] + bytes([section[-1] | 0x80])
    for bad in (b"\x00" * length, b"\xff" * length, beyond):
        with pytest.raises(PayloadError, match="index section"):
            decode(signed(fields, bad + values), size=size)


@pytest.mark.parametrize(
    ("places", "section"),
    [
        ([5, 5], "030003000000030000"),
        ([6, 5], "020103000000030000"),
        ([998, 1001], "020101020003008001"),
    ],
)
def test_elias_fano_indices_out_of_order_or_range_are_refused(
    places: list[int], section: str
) -> None:
    """The sections are those of ``places`` among 1000, which ``encode`` would not write."""
    payload = encode(normal(1000), indices=torch.arange(2))
    fields, values = payload[:FIELDS], payload[HEADER_BYTES + len(section) // 2 :]
    with pytest.raises(PayloadError, match="strictly ascending"):
        decode(signed(fields, bytes.fromhex(section) + values), size=1000)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_neither_sent_nor_taken(bad: float) -> None:
    vector = torch.zeros(10)
    payload = encode(vector)
    with pytest.raises(PayloadError, match="not finite"):
        decode(signed(payload[:FIELDS], struct.pack("<f", bad) * 10), size=10)
    vector[4] = bad
    with pytest.raises(ValueError, match="not finite"):
        encode(vector)


@pytest.mark.parametrize("place", [8, 16])
def test_a_header_that_claims_a_lot_allocates_nothing(place: int) -> None:
    fields = bytearray(encode(normal(300), codec="nf4")[:FIELDS])
    fields[place : place + 8] = struct.pack("<Q", 2**60)
    payload = signed(bytes(fields), b"")
    tracemalloc.start()
    for size in (300, 2**60):
        with pytest.raises(PayloadError):
            decode(payload, size=size)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 16


@pytest.mark.parametrize(
    "indices",
    [
        torch.tensor([1, 1]),
        torch.tensor([2, 1]),
        torch.tensor([-1, 1]),
        torch.tensor([1, 10]),
        torch.tensor([1, 2], dtype=torch.int32),
        torch.tensor([[1, 2]]),
    ],
)
def test_indices_that_do_not_ascend_within_the_vector_are_refused(indices: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="indices must"):
        encode(normal(10), indices=indices)


def test_other_vectors_codecs_and_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="1-D fp32"):
        encode(torch.ones(2, 2))
    with pytest.raises(ValueError, match="codec must be one of"):
        encode(normal(3), codec="zip")
    with pytest.raises(ValueError, match="codec must be one of"):
        payload_size(3, None, "zip")
    for kept in (-1, 4):
        with pytest.raises(ValueError, match=f"must keep 0 to 3 of 3 coordinates, got {kept}"):
            payload_size(3, kept, "none")
