"""Top-k keeps exactly k coordinates and is the same on every machine."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scaling_fl.methods.wire.sparsity import count_kept, density_at, top_k

# Few different values, so that ties are the rule; infinities are large like any other value.
tied = st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 1.0, -1.0, 2.5, -2.5, math.inf, -math.inf])
coordinates = st.one_of(tied, st.floats(width=32, allow_nan=False))


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@given(st.lists(coordinates, min_size=1, max_size=60), st.data())
def test_top_k_is_the_head_of_a_stable_sort_by_magnitude(
    values: list[float], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(values)))
    order = np.argsort(-np.abs(np.array(values, dtype=np.float32)), kind="stable")
    indices = top_k(torch.tensor(values), k)
    assert indices.dtype == torch.int64
    assert indices.tolist() == sorted(order[:k].tolist())


@pytest.mark.parametrize("density", [0.001, 0.01, 0.25, 0.999])
def test_top_k_matches_torch_where_there_are_no_ties(density: float) -> None:
    vector = torch.randperm(100_003).float() * (torch.arange(100_003) % 2 * 2 - 1)
    k = count_kept(100_003, density)
    assert torch.equal(top_k(vector, k), vector.abs().topk(k).indices.sort().values)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
@pytest.mark.parametrize("k", [10, 1000, 70_000])
def test_a_sample_that_misleads_does_not_matter(factor: float, k: int) -> None:
    vector = torch.randn(140_000, generator=torch.Generator().manual_seed(1))
    vector[::3] *= factor  # all coordinates that are looked at to guess a threshold
    assert torch.equal(top_k(vector, k), vector.abs().topk(k).indices.sort().values)


@pytest.mark.parametrize("values", [torch.zeros(70_000), torch.ones(70_000)])
def test_of_equal_coordinates_the_lower_indices_win(values: torch.Tensor) -> None:
    assert torch.equal(top_k(values, 777), torch.arange(777))


def test_both_zeros_have_one_magnitude() -> None:
    assert top_k(torch.tensor([-0.0, 0.0, -0.0, 1e-45]), 2).tolist() == [0, 3]


@pytest.mark.usefixtures("threads")
def test_the_number_of_threads_does_not_matter() -> None:
    vector = torch.randint(-50, 50, (300_000,)).float()
    results = []
    for num_threads in (1, 2):
        torch.set_num_threads(num_threads)
        results.append(top_k(vector, 12_345))
    assert torch.equal(*results)


def test_the_vector_is_left_alone_and_may_be_a_strided_parameter() -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.0, 9.0, -3.0, 9.0, 2.0, 9.0]))
    assert top_k(parameter[::2], 2).tolist() == [1, 2]
    assert parameter.tolist() == [1.0, 9.0, -3.0, 9.0, 2.0, 9.0]


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("k", [1, 3])
def test_a_nan_is_refused(sign: float, k: int) -> None:
    with pytest.raises(ValueError, match="NaN"):
        top_k(torch.tensor([1.0, sign * math.nan, math.inf]), k)


@pytest.mark.parametrize("k", [-1, 0, 4])
def test_a_k_out_of_range_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=r"k must be in \[1, 3\]"):
        top_k(torch.ones(3), k)


@pytest.mark.parametrize("vector", [torch.ones(3).double(), torch.ones(3, 3)])
def test_another_kind_of_vector_is_refused(vector: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="1-D fp32"):
        top_k(vector, 1)


@given(st.integers(1, 10**9), st.integers(1, 10**4))
def test_whole_products_are_kept_whole(per_part: int, parts: int) -> None:
    assert count_kept(per_part * parts, 1 / parts) == per_part


@pytest.mark.parametrize(
    ("size", "density", "kept"),
    [
        (3, 1 / 3, 1),
        (100, 0.29, 29),
        (10, 0.7, 7),
        (10, 0.79, 7),
        (10, 0.01, 1),
        (22_713_216, 1.0, 22_713_216),
        (10**11, 1.0, 10**11),
    ],
)
def test_the_count_is_the_floor_but_at_least_one(size: int, density: float, kept: int) -> None:
    assert count_kept(size, density) == kept


@pytest.mark.parametrize(("size", "density"), [(0, 0.5), (5, 0.0), (5, 1.1), (5, math.nan)])
def test_a_count_of_nothing_is_refused(size: int, density: float) -> None:
    with pytest.raises(ValueError, match="must"):
        count_kept(size, density)


def test_the_density_decays_in_steps() -> None:
    densities = [density_at(number, 0.5, 0.1, 3) for number in range(1, 8)]
    assert densities == pytest.approx([0.5] * 3 + [0.05] * 3 + [0.005])
    assert density_at(9, 0.25, 1.0, 1) == 0.25
