import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_fl.core.exact_sum import FRACTION_BITS, ExactSum
from scaling_fl.core.seeding import numpy_generator
from scaling_fl.methods.privacy.mechanism import (
    AdaptiveClip,
    add_noise_,
    clip_,
    l2_norm,
    noisy_unclipped_fraction,
    update_noise_multiplier,
)

CPU = torch.device("cpu")
FP32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def noise(size: int = 4, std: float = 1.0, seed: int = 0, round_number: int = 1) -> torch.Tensor:
    """The noise that is added, in double and in the scale of the sum."""
    integers = torch.zeros(size, dtype=torch.int64)
    add_noise_(integers, std, numpy_generator(seed, "noise", round_number))
    return integers.double() / 2.0**FRACTION_BITS


def norm_of(update: torch.Tensor) -> float:
    """The L2 norm by Python's exact-as-can-be arithmetic."""
    return math.hypot(*update.double().tolist())


# Clipping


@settings(max_examples=500, deadline=None)
@given(
    values=st.lists(FP32, min_size=1, max_size=9),
    clip=st.floats(min_value=1e-300, max_value=1e300),
)
def test_a_clipped_update_is_never_longer_than_the_clip(values: list[float], clip: float) -> None:
    update = torch.tensor(values, dtype=torch.float32)
    factor = clip_(update, l2_norm(update), clip)
    assert 0 <= factor <= 1
    assert l2_norm(update) <= clip
    assert bool(torch.isfinite(update).all())


@pytest.mark.parametrize("values", [[1e-45], [1e-45] * 9, [3e38] * 9, [3e38, 1e-45], [0.0, 0.0]])
@pytest.mark.parametrize("clip", [1e-46, 9e-46, 2e-45, 1e-38, 1.0, 3e38])
def test_the_extremes_of_fp32_are_clipped_too(values: list[float], clip: float) -> None:
    update = torch.tensor(values)
    clip_(update, l2_norm(update), clip)
    assert norm_of(update) <= clip


def test_clipping_takes_only_what_rounding_could_need() -> None:
    update = torch.randn(100_003, generator=torch.Generator().manual_seed(5))
    original = update.clone()
    factor = clip_(update, l2_norm(update), 0.5)
    assert 0.5 * (1 - 1e-6) < norm_of(update) <= 0.5
    assert factor == pytest.approx(0.5 / norm_of(original), rel=1e-6)
    assert torch.allclose(update, original * factor, rtol=1e-6, atol=0)


def test_a_short_update_keeps_every_bit() -> None:
    update = torch.randn(99)
    original = update.clone()
    assert clip_(update, l2_norm(update), l2_norm(update)) == 1.0
    assert torch.equal(update, original)


def test_the_norm_is_taken_in_double() -> None:
    assert l2_norm(torch.full((4,), 1e38)) == pytest.approx(2e38)
    assert l2_norm(torch.full((3_000_000,), 1e-30)) == pytest.approx(1e-30 * 3e6**0.5)
    assert l2_norm(torch.empty(0)) == 0.0


@pytest.mark.parametrize("norm", [math.inf, math.nan])
def test_an_update_without_a_finite_norm_is_refused(norm: float) -> None:
    with pytest.raises(ValueError, match="norm of an update must be finite"):
        clip_(torch.ones(2), norm, 1.0)


@pytest.mark.parametrize("clip", [0.0, -1.0, math.inf, math.nan])
def test_a_clip_must_be_a_number_above_0(clip: float) -> None:
    with pytest.raises(ValueError, match=r"privacy\.clip must be a finite number above 0"):
        clip_(torch.ones(2), 1.4, clip)


# Noise


def test_noise_has_the_right_moments() -> None:
    drawn = noise(200_000, std=0.3) / 0.3
    assert abs(float(drawn.mean())) < 5 / 200_000**0.5
    assert abs(float(drawn.var()) - 1) < 5 * (2 / 200_000) ** 0.5
    assert abs(float((drawn**4).mean()) - 3) < 5 * (96 / 200_000) ** 0.5
    assert float((drawn.abs() < 1).double().mean()) == pytest.approx(0.6827, abs=0.006)


def test_noise_is_a_function_of_seed_and_round_alone() -> None:
    assert torch.equal(noise(), noise())
    assert not torch.equal(noise(), noise(seed=1))
    assert not torch.equal(noise(), noise(round_number=2))
    assert torch.equal(noise(100_000)[:4], noise(4))
    torch.manual_seed(3)
    assert torch.allclose(noise(), noise(std=0.5) * 2, rtol=0, atol=1e-15)


def test_the_drawn_numbers_stay_what_they_are() -> None:
    """A run resumed after an upgrade must repeat its noise."""
    expected = [-1.4051545, 0.5877424, -0.1602756]
    assert noise(3).tolist() == pytest.approx(expected, abs=1e-6)


def test_noise_on_the_exact_sum_is_the_same_noise() -> None:
    sums = ExactSum(70_000, CPU)
    update = torch.randn(70_000, generator=torch.Generator().manual_seed(1))
    sums.add(update, 0.5)
    add_noise_(sums.integers, 0.25, numpy_generator(9, "noise", 2))
    noisy = sums.integers.double() / 2.0**FRACTION_BITS
    drawn = noise(70_000, 0.25, seed=9, round_number=2)
    assert float((noisy - (update.double() * 0.5 + drawn)).abs().max()) < 1e-15


def test_no_noise_changes_nothing() -> None:
    integers = torch.arange(5)
    add_noise_(integers, 0.0, numpy_generator(0, "noise"))
    assert integers.tolist() == [0, 1, 2, 3, 4]
    assert not noise(5, std=0.0).any()


def test_noise_that_could_overflow_a_sum_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 64"):
        add_noise_(torch.zeros(2, dtype=torch.int64), 65.0, numpy_generator(0, "noise"))


@pytest.mark.parametrize("std", [-1.0, math.nan, math.inf])
def test_a_standard_deviation_is_a_number(std: float) -> None:
    with pytest.raises(ValueError, match="standard deviation"):
        noise(std=std)


# Adaptive clipping


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("first", [1e-3, 50.0])
def test_the_clip_converges_to_the_quantile_of_the_norms(quantile: float, first: float) -> None:
    norms = np.random.Generator(np.random.PCG64(4)).lognormal(mean=1.0, sigma=0.5, size=(300, 100))
    adaptive, clips = AdaptiveClip(first, quantile), []
    for round_number, row in enumerate(norms, start=1):
        within = int((row <= adaptive.clip).sum())
        fraction = noisy_unclipped_fraction(
            within, 100, num_expected=100, std=5.0, rng=numpy_generator(0, "clip", round_number)
        )
        adaptive = adaptive.after(fraction)
        clips.append(adaptive.clip)
    reached = float(np.exp(np.mean(np.log(clips[-100:]))))
    assert reached == pytest.approx(float(np.quantile(norms, quantile)), rel=0.08)


def test_one_step_of_the_clip_is_the_formula() -> None:
    stepped = AdaptiveClip(2.0, target_quantile=0.5, learning_rate=0.2).after(0.9)
    assert stepped == AdaptiveClip(2.0 * math.exp(-0.2 * 0.4), 0.5, 0.2)
    assert AdaptiveClip(2.0, 0.25).after(0.25).clip == 2.0


def test_the_fraction_is_unbiased_and_noisy_as_asked() -> None:
    drawn = np.array(
        [
            noisy_unclipped_fraction(
                7, 10, num_expected=10, std=2.0, rng=numpy_generator(0, "clip", r)
            )
            for r in range(4000)
        ]
    )
    assert drawn.mean() == pytest.approx(0.7, abs=5 * 0.2 / 4000**0.5)
    assert drawn.std() == pytest.approx(0.2, rel=0.06)


def test_without_noise_the_fraction_is_exact_and_a_missing_client_counts_half() -> None:
    def fraction(within: int, clients: int) -> float:
        return noisy_unclipped_fraction(
            within, clients, num_expected=10, std=0.0, rng=numpy_generator(0, "clip")
        )

    assert fraction(7, 10) == pytest.approx(0.7)
    assert fraction(0, 0) == 0.5
    assert fraction(4, 9) - fraction(3, 8) == pytest.approx(0.05)


@given(z=st.floats(min_value=0.01, max_value=100), std=st.floats(min_value=0.01, max_value=1000))
def test_updates_and_fraction_together_have_the_noise_multiplier(z: float, std: float) -> None:
    if 2 * std <= z:
        with pytest.raises(ValueError, match=r"privacy\.clip_noise"):
            update_noise_multiplier(z, std)
        return
    z_delta = update_noise_multiplier(z, std)
    assert z_delta >= z
    assert z_delta**-2 + (2 * std) ** -2 == pytest.approx(z**-2, rel=1e-9)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"clip": 0.0}, r"privacy\.clip must"),
        ({"learning_rate": 0.0}, "clip_learning_rate"),
        ({"target_quantile": 1.5}, "target_quantile"),
    ],
)
def test_impossible_adaptive_clips_are_refused(change: dict[str, float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        AdaptiveClip(**{"clip": 1.0, **change})
