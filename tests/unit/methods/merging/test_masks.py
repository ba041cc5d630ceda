"""Masked merges against dense computations in fp64."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from scaling_fl.conformance.rounds import SIZE, Sent, merged, some_updates
from scaling_fl.core.seeding import derive
from scaling_fl.methods.merging.masks import consensus_mask, dare, dare_ties, magnitude_mask
from scaling_fl.methods.merging.merge import Merge
from scaling_fl.methods.merging.signs import ties


def stacked(updates: list[Sent]) -> tuple[Tensor, Tensor]:
    """Return the updates (clients, size) and their shares (clients, 1) in fp64."""
    vectors = torch.stack([one.vector for one in updates]).double()
    return vectors, torch.tensor([one.share for one in updates], dtype=torch.float64)[:, None]


def draws(client: int, round_number: int = 1, seed: int = 0) -> Tensor:
    seed_of_round = derive(seed, "round", round_number)
    source = np.random.SFC64(derive(seed_of_round, "merge", client))
    words = [int(word) for word in source.random_raw(SIZE)]
    halves = [half for word in words for half in (word % 2**32, word // 2**32)]
    return torch.tensor(halves[:SIZE], dtype=torch.float64) / 2**32


@pytest.mark.parametrize("drop", [0.0, 0.3, 0.9])
def test_dare_drops_by_seed_round_and_client_and_rescales(drop: float) -> None:
    updates = some_updates(5, 2)
    vectors, shares = stacked(updates)
    kept = torch.stack([draws(one.client) >= drop for one in updates])
    expected = (vectors * kept / (1 - drop) * shares).sum(0)
    assert torch.allclose(merged(partial(dare, drop), updates).double(), expected, 1e-6, 1e-8)


def test_dare_before_ties_is_ties_of_what_dare_leaves() -> None:
    updates = some_updates(5, 3)
    masked = [
        Sent(one.client, one.vector * (draws(one.client) >= 0.5) / 0.5, one.share)
        for one in updates
    ]
    found = merged(partial(dare_ties, 0.5, 0.2), updates)
    assert torch.equal(found, merged(partial(ties, 0.2), masked))


@pytest.mark.parametrize("make", [dare, partial(dare_ties, density=1.0)])
def test_dare_rescales_what_no_sum_could_hold(make: Callable[..., Merge]) -> None:
    client = next(number for number in range(99) if (draws(number) >= 0.99).any())
    updates = [Sent(client, torch.full((SIZE,), 30.0), 1.0)]
    expected = 30.0 * (draws(client) >= 0.99) / (1 - 0.99)
    found = merged(partial(make, drop=0.99), updates)
    assert found.max() > 2999
    assert torch.allclose(found, expected)


def test_the_mean_of_dare_over_many_draws_is_the_mean() -> None:
    """One update as that of 4000 clients: every coordinate is kept by about half of them."""
    vector = torch.ones(SIZE)
    updates = [Sent(client, vector, 1 / 4000) for client in range(4000)]
    found = merged(partial(dare, 0.5), updates)
    assert (found - 1.0).abs().max() < 5 / 4000**0.5


def test_magnitude_mask_averages_the_largest_coordinates() -> None:
    updates = some_updates(5, 4)
    vectors, shares = stacked(updates)
    smallest_kept = vectors.abs().sort(1).values[:, SIZE - SIZE // 5 : SIZE - SIZE // 5 + 1]
    expected = (vectors * (vectors.abs() >= smallest_kept) * shares).sum(0)
    found = merged(partial(magnitude_mask, 0.2), updates).double()
    assert torch.allclose(found, expected, 1e-6, 1e-9)


@pytest.mark.parametrize("agreeing", [1, 2, 3, 9])
def test_consensus_mask_keeps_what_enough_clients_hold_to_be_their_own(agreeing: int) -> None:
    for seed in range(5):
        updates = some_updates(4, seed)
        vectors, shares = stacked(updates)
        mean = (vectors * shares).sum(0)
        own = vectors.abs() > 0.4 * (mean - vectors).abs()
        expected = mean * (own.sum(0) >= min(agreeing, 4))
        found = merged(partial(consensus_mask, 0.4, agreeing), updates).double()
        assert torch.allclose(found, expected, 1e-6, 1e-9)
