"""Laws 2 and 3 rest on these: sums do not depend on order, and equal terms are a fixed point."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scaling_fl.core.exact_sum import FRACTION_BITS, LIMIT, ExactSum, is_summable

CPU = torch.device("cpu")
coordinates = st.floats(-LIMIT, LIMIT, width=32)


def mean_of(vectors: list[torch.Tensor], shares: list[float]) -> torch.Tensor:
    sums = ExactSum(vectors[0].numel(), CPU)
    for vector, share in zip(vectors, shares, strict=True):
        sums.add(vector, share)
    return sums.mean(torch.empty_like(vectors[0]), 1.0)


@given(st.permutations(range(6)), st.integers(0, 2**32))
def test_the_sum_does_not_depend_on_the_order(order: list[int], seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    vectors = [torch.randn(300, generator=rng) * 10.0**-k for k in range(6)]
    shares = [(k + 1) / 21 for k in range(6)]
    straight = mean_of(vectors, shares)
    shuffled = mean_of([vectors[i] for i in order], [shares[i] for i in order])
    assert torch.equal(straight, shuffled)


@pytest.mark.parametrize("num_workers", [2, 3, 5])
def test_sums_of_workers_add_up_to_the_sum_of_one(num_workers: int) -> None:
    vectors = [torch.randn(200_001) for _ in range(7)]
    one = ExactSum(200_001, CPU)
    many = [ExactSum(200_001, CPU) for _ in range(num_workers)]
    for i, vector in enumerate(vectors):
        one.add(vector, 1 / 7)
        many[i % num_workers].add(vector, 1 / 7)
    assert torch.equal(one.integers, sum(part.integers for part in many))


@pytest.mark.parametrize("num_clients", [1, 2, 3, 7, 64, 1000])
def test_equal_clients_are_a_fixed_point_of_the_mean(num_clients: int) -> None:
    vector = torch.randn(5000)
    vector[vector.abs() < 2.0**-15] = 0.0
    assert torch.equal(mean_of([vector] * num_clients, [1 / num_clients] * num_clients), vector)


@given(st.lists(st.tuples(coordinates, st.integers(1, 1000)), min_size=1, max_size=20))
def test_the_mean_is_the_rational_mean_to_within_the_unit(terms: list[tuple[float, int]]) -> None:
    total = sum(weight for _, weight in terms)
    shares = [weight / total for _, weight in terms]
    sums = ExactSum(1, CPU)
    for (value, _), share in zip(terms, shares, strict=True):
        sums.add(torch.tensor([value]), share)
    exact = sum(Fraction(v) * Fraction(s) for (v, _), s in zip(terms, shares, strict=True))
    got = Fraction(int(sums.integers[0]), 2**FRACTION_BITS)
    # Half a unit per term for the rounding, and a double's relative error in share * value.
    slack = len(terms) * (Fraction(1, 2**FRACTION_BITS) + Fraction(LIMIT) / 2**52)
    assert abs(got - exact) <= slack


def test_the_largest_terms_do_not_overflow() -> None:
    vector = torch.tensor([LIMIT, -LIMIT])
    assert torch.equal(mean_of([vector] * 64, [1 / 64] * 64), vector)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 2 * LIMIT, -2 * LIMIT])
@pytest.mark.parametrize("share", [1.0, 1e-6])
def test_a_term_that_would_wrap_around_is_refused(bad: float, share: float) -> None:
    vector = torch.zeros(100_000)
    vector[90_001] = bad
    with pytest.raises(
        ValueError, match=r"must be below 2048 everywhere to be summed, got (nan|inf|2048)"
    ):
        ExactSum(100_000, CPU).add(vector, share)
    vector[90_001] = 2047.0
    sums = ExactSum(100_000, CPU)
    for _ in range(100):
        sums.add(vector, 0.01)
    assert torch.allclose(sums.mean(torch.empty(100_000), 1.0), vector)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 2 * LIMIT, -2 * LIMIT])
def test_a_coordinate_that_is_not_summable_is_found(bad: float) -> None:
    vector = torch.zeros(1000)
    assert is_summable(vector)
    vector[517] = bad
    assert not is_summable(vector)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_outside_0_to_1_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        ExactSum(1, CPU).add(torch.zeros(1), share)


def test_leaving_a_client_out_averages_the_others() -> None:
    sums = ExactSum(2, CPU)
    sums.add(torch.tensor([1.0, 2.0]), 0.25)
    sums.add(torch.tensor([3.0, 6.0]), 0.25)  # the third, with a share of one half, diverged
    assert torch.equal(sums.mean(torch.empty(2), 0.5), torch.tensor([2.0, 4.0]))


def units_of(vector: torch.Tensor, share: float) -> torch.Tensor:
    """Round the product in double to the nearest whole number of integers, ties to even."""
    return (vector.double() * (share * 2.0**FRACTION_BITS)).round().to(torch.int64)


@pytest.mark.parametrize("exponent", [-70, -53, -50, -40, -9, -1, 0, 4, 9])
@pytest.mark.parametrize("share", [1.0, 1 / 3, 1 / 16, 2.0**-30, 0.0])
def test_a_term_is_rounded_once_whatever_its_size(exponent: int, share: float) -> None:
    vector = (torch.rand(70_000, generator=torch.Generator().manual_seed(1)) * 2 - 1).ldexp(
        torch.tensor(exponent)
    )
    vector[:17] = torch.arange(-8, 9).ldexp(torch.tensor(exponent - 3))  # ends and halves
    sums = ExactSum(70_000, CPU)
    sums.add(vector, share)
    sums.add(-2 * vector, share)
    assert torch.equal(sums.integers, units_of(vector, share) + units_of(-2 * vector, share))


def test_parts_of_any_size_meet_in_one_sum() -> None:
    """One part of the vector is zero, one tiny, one small, one near the limit."""
    vector = torch.randn(300_000, generator=torch.Generator().manual_seed(1))
    vector[:90_000] = 0.0
    vector[90_000:170_000] *= 1e-17
    vector[240_000:] *= 100
    sums = ExactSum(300_000, CPU, torch.full((300_000,), 7))
    sums.add(vector, 0.7)
    assert torch.equal(sums.integers, units_of(vector, 0.7) + 7)
    sums.clear()
    assert not sums.integers.any()


def test_shares_add_up_where_they_are_marked() -> None:
    marks = torch.rand(200_001) < 0.3
    by_marks, by_indices = ExactSum(200_001, CPU), ExactSum(200_001, CPU)
    by_marks.add_share(1 / 7, marks)
    by_indices.add_share(1 / 7, marks.nonzero().squeeze(1))
    assert torch.equal(by_marks.integers, marks * round(2**FRACTION_BITS / 7))
    assert torch.equal(by_indices.integers, by_marks.integers)
