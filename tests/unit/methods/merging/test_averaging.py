"""Averaging whole states: the definition, and equal states as a fixed point."""

import numpy as np
import pytest
import torch

from scaling_fl.methods.merging.means import average


def vectors(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1000, generator=generator) * 10.0 ** (i - 3) for i in range(count)]


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [2.0, 1.0, 0.5], [1e-9, 3e7, 0.1]])
def test_it_is_numpys_weighted_average(weights: list[float]) -> None:
    given = vectors(3)
    expected = np.average([v.double().numpy() for v in given], axis=0, weights=weights)
    found = average(iter(given), weights)
    assert found.dtype == torch.float32
    assert np.allclose(found.numpy(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("weights", [[1.0], [1.0] * 3, [1.0] * 7, [0.1, 0.7, 1 / 3], [1e-30, 1e9]])
def test_equal_vectors_are_their_own_mean_bit_for_bit(weights: list[float]) -> None:
    vector = vectors(1)[0]
    vector[:4] = torch.tensor([0.0, 1e-45, 3.4e38, -1.1754944e-38])
    assert torch.equal(average([vector] * len(weights), weights), vector)


def test_nothing_given_is_changed() -> None:
    given = vectors(2)
    before = [vector.clone() for vector in given]
    average(given, [2.0, 1.0])
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))


def test_each_vector_needs_a_weight() -> None:
    with pytest.raises(ValueError, match="shorter"):
        average(vectors(2), [1.0])
