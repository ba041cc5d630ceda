"""Factors of products against dense matrices in fp64, which are never square."""

import pytest
import torch
from torch import Tensor

from scaling_fl.methods.merging.low_rank import Factors, side_by_side, truncate


def some_factors(out: int, inner: int, rank: int, seed: int) -> Factors:
    rng = torch.Generator().manual_seed(seed)
    left = torch.randn(out, rank, generator=rng, dtype=torch.float64)
    return Factors(left, torch.randn(rank, inner, generator=rng, dtype=torch.float64))


def dense(factors: Factors) -> Tensor:
    return factors.left @ factors.right


def rank_one(left: list[float], right: list[float], weight: float) -> Factors:
    return Factors(
        weight * torch.tensor(left, dtype=torch.float64)[:, None],
        torch.tensor(right, dtype=torch.float64)[None],
    )


def test_two_clients_by_hand() -> None:
    """B A of client 0 is [1 2]^T [1 0 1] at weight 1/4, of client 1 [0 1]^T [2 1 0] at 3/4."""
    total = side_by_side([rank_one([1, 2], [1, 0, 1], 0.25), rank_one([0, 1], [2, 1, 0], 0.75)])
    expected = torch.tensor([[0.25, 0.0, 0.25], [2.0, 0.75, 0.5]], dtype=torch.float64)
    assert torch.allclose(dense(total), expected)
    best = truncate(total, 1)
    assert best.kept.tolist() == pytest.approx([2.21233], abs=1e-5)
    assert best.lost == pytest.approx(0.2076, abs=1e-4)
    nearest = [[0.261883, 0.096623, 0.068636], [1.998443, 0.737338, 0.523767]]
    assert torch.allclose(
        dense(best.factors), torch.tensor(nearest, dtype=torch.float64), atol=1e-6
    )


@pytest.mark.parametrize(("out", "inner"), [(30, 20), (12, 40)])
@pytest.mark.parametrize("rank", [1, 4, 10])
def test_the_error_is_that_of_eckart_and_young(out: int, inner: int, rank: int) -> None:
    total = side_by_side([some_factors(out, inner, r, seed) for seed, r in enumerate((2, 8, 4, 8))])
    values = torch.linalg.svdvals(dense(total))
    best = truncate(total, rank)
    error = torch.linalg.matrix_norm(dense(total) - dense(best.factors))
    assert float(error) == pytest.approx(float(values[rank:].norm()), rel=1e-9)
    assert best.lost == pytest.approx(float(error), rel=1e-9)
    assert torch.allclose(best.kept, values[:rank])
    assert total.norm() == pytest.approx(float(values.norm()))


@pytest.mark.parametrize(("out", "inner"), [(3, 7), (7, 3)])
def test_a_rank_above_the_sides_of_the_matrix_loses_nothing(out: int, inner: int) -> None:
    total = some_factors(out, inner, 5, 1)
    best = truncate(total, 5)
    assert (best.factors.left.shape, best.factors.right.shape) == ((out, 5), (5, inner))
    assert torch.allclose(dense(best.factors), dense(total))
    assert len(best.kept) == 3


def test_a_change_of_basis_that_no_client_sees_changes_nothing() -> None:
    one, other = some_factors(9, 14, 4, 1), some_factors(9, 14, 4, 2)
    basis = torch.randn(4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    turned = Factors(other.left @ basis, torch.linalg.inv(basis) @ other.right)
    found = [truncate(side_by_side([one, each]), 4).factors for each in (other, turned)]
    assert torch.allclose(found[0].left, found[1].left, atol=1e-9)
    assert torch.allclose(found[0].right, found[1].right, atol=1e-9)


def test_no_component_is_dead() -> None:
    """Where B is 0, as before the first round, the rows of A stay a basis."""
    start = Factors(torch.zeros(9, 4, dtype=torch.float64), some_factors(9, 14, 4, 1).right)
    best = truncate(start, 4).factors
    assert not best.left.any()
    assert torch.allclose(best.right @ best.right.T, torch.eye(4, dtype=torch.float64), atol=1e-12)
