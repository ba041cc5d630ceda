"""Codecs are the formats they claim to be, lose nothing twice, and have the length they say."""

import math
import struct
import warnings
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from scaling_fl.methods.wire import nf4
from scaling_fl.methods.wire.codecs import CODECS

NAMES = sorted(CODECS)
IDEMPOTENT = ["none", "fp16", "bf16", "int8", "nf4"]
COUNTS = [0, 1, 2, 63, 64, 65, 127, 128, 1001, 16_384, 16_385, 131_100]
LARGEST = torch.finfo(torch.float32).max
# What bitsandbytes divides by where a block holds nothing larger, see nf4.quantise.
SMALLEST = 1e-38

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = arrays.arrays(np.float32, st.integers(0, 200), elements=finite).map(torch.from_numpy)


@pytest.fixture(scope="module")
def reference() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import is deprecated in its own dependencies
        import bitsandbytes.functional

    return bitsandbytes.functional


def normal(count: int, *, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)) * scale


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.view(torch.int32), b.view(torch.int32))


def round_trip(name: str, values: torch.Tensor) -> torch.Tensor:
    codec = CODECS[name]
    return codec.decode(bytes(codec.encode(values)), values.numel())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", COUNTS)
def test_the_length_is_the_one_promised_and_so_is_the_count(name: str, count: int) -> None:
    values = normal(count)
    encoded = CODECS[name].encode(values)
    assert len(bytes(encoded)) == CODECS[name].num_bytes(count)
    decoded = CODECS[name].decode(encoded, count)
    assert (decoded.dtype, decoded.shape) == (torch.float32, values.shape)


@pytest.mark.parametrize("name", NAMES)
def test_the_values_are_left_alone(name: str) -> None:
    values = normal(1000)
    before = values.clone()
    round_trip(name, values)
    assert torch.equal(values, before)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", COUNTS)
def test_zeros_decode_to_zeros(name: str, count: int) -> None:
    assert torch.equal(round_trip(name, torch.zeros(count)), torch.zeros(count))


@given(vectors)
def test_no_codec_is_the_identity(values: torch.Tensor) -> None:
    assert same_bits(round_trip("none", values), values)
    assert bytes(CODECS["none"].encode(values)) == struct.pack(f"<{len(values)}f", *values.tolist())


@given(vectors, st.sampled_from(IDEMPOTENT))
def test_coding_what_was_decoded_changes_nothing(values: torch.Tensor, name: str) -> None:
    if name == "nf4":
        values = torch.where(values.abs() < SMALLEST, 0.0, values)
    once = round_trip(name, values)
    assert same_bits(round_trip(name, once), once)


@pytest.mark.parametrize("name", IDEMPOTENT)
@pytest.mark.parametrize("scale", [1e-36, 1e-20, 1e-3, 1.0, 7e10, 3e37])
def test_coding_large_vectors_again_changes_nothing(name: str, scale: float) -> None:
    once = round_trip(name, normal(100_001, scale=scale))
    assert same_bits(round_trip(name, once), once)


@pytest.mark.parametrize("multiple", [1, 2, 3, 63, 126, 127, 128, 1000])
def test_int8_of_the_smallest_numbers_is_idempotent_too(multiple: int) -> None:
    values = torch.linspace(-multiple, multiple, 64).round() * 2.0**-149
    once = round_trip("int8", values)
    assert same_bits(round_trip("int8", once), once)


@given(vectors, st.sampled_from([("fp16", torch.float16), ("bf16", torch.bfloat16)]))
def test_short_floats_match_torch_and_saturate(
    values: torch.Tensor, case: tuple[str, torch.dtype]
) -> None:
    name, dtype = case
    expected = values.to(dtype)
    limit = torch.finfo(dtype).max
    expected = torch.where(expected.isinf(), torch.copysign(torch.tensor(limit), values), expected)
    assert same_bits(round_trip(name, values), expected.float())


def test_bf16_rounds_to_nearest_even() -> None:
    values = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8), 1 + 2**-8 + 2**-20])
    expected = torch.tensor([1.0, 1 + 2**-6, -1.0, 1 + 2**-7])
    assert torch.equal(round_trip("bf16", values), expected)


def test_int8_is_the_nearest_of_255_levels_of_each_block() -> None:
    values = normal(1000)
    decoded = round_trip("int8", values)
    for start in range(0, 1000, 64):
        block, back = values[start : start + 64].double(), decoded[start : start + 64].double()
        step = block.abs().max() / 127
        assert ((block - back).abs() <= step * 0.500001).all()
        assert back.abs().max() == block.abs().max()


def test_int8_rounds_ties_to_even() -> None:
    values = torch.tensor([127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5])
    expected = torch.tensor([127.0, 0.0, 2.0, 2.0, 0.0, -2.0, -2.0])
    assert round_trip("int8", values).tolist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize("name", ["int8", "nf4"])
def test_the_largest_number_survives_its_block(name: str) -> None:
    values = torch.tensor([LARGEST, -LARGEST, 0.0])
    assert torch.equal(round_trip(name, values), values)


def test_int8_cannot_be_made_to_overflow() -> None:
    hostile = struct.pack("<f", LARGEST) + b"\x80\x81"
    assert CODECS["int8"].decode(hostile, 2).tolist() == [-LARGEST, -LARGEST]


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 129, 65_536, 65_537, 200_003])
@pytest.mark.parametrize("scale", [1e-40, 1e-38, 1e-30, 1e-3, 1.0, 1e37])
def test_nf4_codes_and_scales_are_those_of_bitsandbytes(
    reference: Any, count: int, scale: float
) -> None:
    values = normal(count, scale=scale)
    values[: count // 3 // 64 * 64] = 0.0
    codes, scales = nf4.quantise(values)
    packed, state = reference.quantize_4bit(values, quant_type="nf4", blocksize=64)
    assert np.array_equal(codes, packed.numpy().ravel())
    assert np.array_equal(scales, state.absmax.numpy())


def test_nf4_picks_the_side_of_bitsandbytes_at_every_bound(reference: Any) -> None:
    bounds = (nf4.LEVELS[:-1] + nf4.LEVELS[1:]) / np.float32(2)
    steps = [bounds, np.nextafter(bounds, np.float32(2)), np.nextafter(bounds, np.float32(-2))]
    near = np.concatenate([*steps, [1.0], np.zeros(18)]).astype(np.float32)
    values = torch.from_numpy(np.concatenate([near * s for s in (1.0, 0.3, 1.7, 1e-4)]))
    values = torch.cat([values, values[:40]]).float()
    packed, _ = reference.quantize_4bit(values, quant_type="nf4", blocksize=64)
    assert np.array_equal(nf4.quantise(values)[0], packed.numpy().ravel())


@pytest.mark.parametrize("count", [2, 64, 66, 65_538, 200_002])
def test_nf4_decodes_as_bitsandbytes_does(reference: Any, count: int) -> None:
    values = normal(count)
    packed, state = reference.quantize_4bit(values, quant_type="nf4", blocksize=64)
    expected = reference.dequantize_4bit(packed, state).ravel()
    assert torch.equal(round_trip("nf4", values), expected)


def test_nf4_has_the_error_that_is_known_of_it() -> None:
    values = normal(200_000)
    error = (round_trip("nf4", values) - values).norm() / values.norm()
    assert error.item() == pytest.approx(0.092, abs=0.001)
    error = (round_trip("nf4_double", values) - values).norm() / values.norm()
    assert error.item() == pytest.approx(0.092, abs=0.001)


def test_the_dynamic_levels_are_those_of_bitsandbytes(reference: Any) -> None:
    assert np.array_equal(nf4.DYNAMIC_LEVELS, reference.create_dynamic_map().numpy())


@pytest.mark.parametrize("count", [2, 64, 640, 64 * 256, 64 * 257 + 2, 1_000_002])
@pytest.mark.parametrize("spread", [0.0, 1.0, 4.0])
def test_nf4_double_is_bitsandbytes_with_an_exact_search(
    reference: Any, count: int, spread: float
) -> None:
    sizes = (normal(nf4.num_blocks(count), seed=1) * spread).exp()
    values = normal(count) * sizes.repeat_interleave(64)[:count]
    packed, state = reference.quantize_4bit(
        values, quant_type="nf4", blocksize=64, compress_statistics=True
    )
    theirs = (reference.dequantize_blockwise(state.absmax, state.state2) + state.offset).numpy()
    codes, scales = nf4.quantise(values)
    assert np.array_equal(codes, packed.numpy().ravel())
    compressed = nf4.compress_scales(scales)
    assert np.allclose(compressed.absmax, state.state2.absmax, rtol=1e-6, atol=1e-6)
    ours = nf4.expand_scales(compressed)
    unit = np.repeat(compressed.absmax, 256)[: len(ours)] + abs(compressed.offset)
    # Where the two differ, ours is nearer, but both lie about half a level from the scale.
    closer = (np.abs(theirs - scales) - np.abs(ours - scales)) / unit
    assert closer.min() >= -1e-6
    differ = np.abs(theirs - ours) > 1e-6 * unit
    assert np.mean(differ) <= 0.02
    decoded, expected = round_trip("nf4_double", values), reference.dequantize_4bit(packed, state)
    same = torch.from_numpy(~differ).repeat_interleave(64)[:count]
    tolerance = 2e-6 * unit.max()
    assert torch.allclose(decoded[same], expected.ravel()[same], rtol=1e-5, atol=tolerance)


@pytest.mark.parametrize(("name", "bits"), [("nf4", 4.5), ("nf4_double", 4.127), ("int8", 8.5)])
def test_bits_per_parameter(name: str, bits: float) -> None:
    count = 64 * 256 * 100
    assert 8 * CODECS[name].num_bytes(count) / count == pytest.approx(bits, abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_not_encoded(name: str, bad: float) -> None:
    values = torch.zeros(200)
    values[150] = bad
    with pytest.raises(ValueError, match="not finite"):
        CODECS[name].encode(values)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("values", [torch.ones(3).half(), torch.ones(2, 2), torch.tensor(1.0)])
def test_another_kind_of_tensor_is_refused(name: str, values: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="1-D fp32"):
        CODECS[name].encode(values)


@pytest.mark.parametrize("name", NAMES)
def test_strided_parameters_are_encoded(name: str) -> None:
    values = torch.nn.Parameter(normal(300))
    assert bytes(CODECS[name].encode(values[::3])) == bytes(
        CODECS[name].encode(values.detach()[::3].clone())
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", [-1, 1])
def test_a_buffer_of_another_length_is_refused(name: str, change: int) -> None:
    with pytest.raises(ValueError, match="bytes"):
        CODECS[name].decode(bytes(CODECS[name].num_bytes(100) + change), 100)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pattern", [b"\x00\x00\x80\x7f", b"\xff\xff\xff\xff"])
def test_a_value_or_scale_that_is_not_finite_is_not_decoded(name: str, pattern: bytes) -> None:
    raw = bytearray(CODECS[name].encode(normal(130)))
    raw[:4] = pattern if name != "fp16" else pattern[:2] + b"\x00\x7c"
    with pytest.raises(ValueError, match="not finite"):
        CODECS[name].decode(raw, 130)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", COUNTS)
def test_memory_at_hand_is_decoded_into(name: str, count: int) -> None:
    encoded = bytes(CODECS[name].encode(normal(count)))
    at_hand = torch.full((count,), 7.0)
    assert CODECS[name].decode(encoded, count, at_hand) is at_hand
    assert same_bits(at_hand, CODECS[name].decode(encoded, count))


def test_memory_of_another_length_is_not_decoded_into() -> None:
    with pytest.raises(ValueError, match="out must have 3 values, got 4"):
        CODECS["none"].decode(bytes(12), 3, torch.zeros(4))


def test_scales_that_overflow_together_are_not_decoded() -> None:
    raw = struct.pack("<ff", LARGEST, LARGEST) + b"\xff" + bytes(32)
    with pytest.raises(ValueError, match="not finite"):
        CODECS["nf4_double"].decode(raw, 64)


def test_a_mean_of_scales_does_not_depend_on_their_order() -> None:
    scales = normal(5000).abs().numpy()
    exact = sum(Fraction(float(scale)) for scale in scales) / 5000
    forwards, backwards = nf4.compress_scales(scales), nf4.compress_scales(scales[::-1])
    assert forwards.offset == backwards.offset == np.float32(float(exact))
