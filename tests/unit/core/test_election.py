"""One pass of an election comes to what two passes come to: first the signs, then their terms."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from scaling_fl.core.election import Election
from scaling_fl.core.exact_sum import LIMIT, ExactSum

CPU = torch.device("cpu")
SIZE = 70_001  # two parts
Terms = Sequence[tuple[Tensor, float]]


def new_sum() -> ExactSum:
    return ExactSum(SIZE, CPU)


def in_one_pass(terms: Terms, num_workers: int) -> tuple[Tensor, Tensor]:
    """Return the sums of the terms of the elected signs, and of their shares."""
    elections = [Election(new_sum(), new_sum()) for _ in range(num_workers)]
    for number, (vector, share) in enumerate(terms):
        elections[number % num_workers].add(vector, share)
    for name in ("total", "other"):
        of_all = sum(getattr(one, name).integers for one in elections)
        for one in elections:
            getattr(one, name).integers.copy_(of_all)
    for one in elections:
        one.close()
        assert torch.equal(one.total.integers, elections[0].total.integers)
    return elections[0].total.integers, sum(one.other.integers for one in elections)


def in_two_passes(terms: Terms) -> tuple[Tensor, Tensor]:
    total, values, shares = new_sum(), new_sum(), new_sum()
    for vector, share in terms:
        total.add(vector, share)
    for vector, share in terms:
        agrees = vector.sign() == total.integers.sign()
        agrees &= vector != 0
        values.add(vector * agrees, share)
        shares.add_share(share, agrees)
    return values.integers, shares.integers


@pytest.mark.parametrize("num_workers", [1, 3])
@pytest.mark.parametrize("num_terms", [1, 7, 8, 9, 20])
def test_one_pass_comes_to_what_two_passes_come_to(num_terms: int, num_workers: int) -> None:
    rng = torch.Generator().manual_seed(num_terms)
    weights = torch.rand(num_terms, generator=rng)
    vectors = torch.randint(-2, 3, (num_terms, SIZE), generator=rng) / 4.0
    vectors[:, 1000:2000] *= 1e-17  # terms of which the sum holds nothing, and which still agree
    vectors[:, 2000:3000] *= LIMIT * 2
    terms = list(zip(vectors, (weights / weights.sum()).tolist(), strict=True))
    expected = in_two_passes(terms)
    for found, wanted in zip(in_one_pass(terms, num_workers), expected, strict=True):
        assert torch.equal(found, wanted)


def test_where_no_sign_is_elected_both_sums_are_0() -> None:
    vector = torch.randn(SIZE)
    values, shares = in_one_pass([(vector, 0.5), (-vector, 0.5)], 1)
    assert not values.any()
    assert not shares.any()
