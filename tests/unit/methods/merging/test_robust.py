"""Robust merges against dense computations in fp64, numpy and scipy."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import trim_mean

from scaling_fl.conformance.rounds import SIZE, Sent, merged, some_updates
from scaling_fl.methods.merging.means import mean
from scaling_fl.methods.merging.robust import krum, median, multikrum, trimmed_mean


def as_array(updates: list[Sent]) -> np.ndarray:
    return np.stack([one.vector.double().numpy() for one in updates])


@pytest.mark.parametrize("num_clients", [1, 2, 5, 8])
def test_the_median_is_that_of_numpy(num_clients: int) -> None:
    updates = some_updates(num_clients, 1)
    found = merged(median, updates).double().numpy()
    np.testing.assert_allclose(found, np.median(as_array(updates), axis=0), 1e-7, 1e-9)


@pytest.mark.parametrize("trim", [0.0, 0.1, 0.3, 0.49])
@pytest.mark.parametrize("num_clients", [1, 5, 10])
def test_the_trimmed_mean_is_that_of_scipy(num_clients: int, trim: float) -> None:
    updates = some_updates(num_clients, 2)
    found = merged(partial(trimmed_mean, trim), updates).double().numpy()
    np.testing.assert_allclose(found, trim_mean(as_array(updates), trim, axis=0), 1e-6, 1e-9)


def krum_scores(vectors: np.ndarray, byzantine: int) -> np.ndarray:
    """Score the clients as arXiv 1703.02757 has it."""
    distances = ((vectors[:, None] - vectors[None]) ** 2).sum(2)
    np.fill_diagonal(distances, np.inf)
    num_nearest = max(1, len(vectors) - byzantine - 2)
    return np.sort(distances, axis=1)[:, :num_nearest].sum(1)


@pytest.mark.parametrize("byzantine", [0, 1, 3])
@pytest.mark.parametrize("selected", [1, 3])
def test_multikrum_averages_the_updates_of_the_lowest_scores(byzantine: int, selected: int) -> None:
    for seed in range(5):
        updates = some_updates(9, seed)
        vectors = as_array(updates)
        chosen = np.argsort(krum_scores(vectors, byzantine))[:selected]
        found = merged(partial(multikrum, byzantine, selected), updates).double().numpy()
        np.testing.assert_allclose(found, vectors[chosen].mean(0), 1e-6, 1e-9)


def test_krum_returns_one_client_s_update_to_the_bit() -> None:
    updates = some_updates(7, 3)
    chosen = int(np.argmin(krum_scores(as_array(updates), 2)))
    expected = updates[chosen].vector
    assert torch.allclose(merged(partial(krum, 2), updates), expected, rtol=0, atol=2.0**-52)


@pytest.mark.parametrize(
    "make", [median, partial(trimmed_mean, 0.25), partial(krum, 2), partial(multikrum, 2, 5)]
)
def test_two_of_nine_clients_lead_the_merge_nowhere(make) -> None:
    """They send 100 times the opposite: the mean turns round, and these merges do not."""
    true = torch.randn(SIZE, generator=torch.Generator().manual_seed(7))
    updates = [replace(one, vector=true + one.vector, share=1 / 9) for one in some_updates(9, 4)]
    for wrong in (2, 6):
        updates[wrong] = replace(updates[wrong], vector=-100 * true)
    assert torch.dot(merged(mean, updates), true) < 0
    assert (merged(make, updates) - true).norm() < 0.2 * true.norm()
