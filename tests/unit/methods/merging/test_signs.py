"""TIES against a dense computation in fp64, as the paper has it."""

from collections.abc import Sequence

import pytest
import torch

from scaling_fl.conformance.rounds import LAYOUT, SIZE, Sent, merged, some_updates
from scaling_fl.methods.merging.signs import ties

WHOLE = (slice(0, SIZE),)


def trimmed(vector: torch.Tensor, density: float) -> torch.Tensor:
    """Keep floor(n * density) of n values, at least one; a seed of this project keeps one more."""
    kept = vector.abs().topk(max(1, int(len(vector) * density))).indices
    return torch.zeros(len(vector), dtype=torch.float64).index_copy(0, kept, vector.double()[kept])


def dense(updates: list[Sent], density: float, places: Sequence[slice] = WHOLE) -> torch.Tensor:
    """Trim, elect and average the updates at once. Source: arXiv 2306.01708, algorithm 1."""
    rows = [torch.cat([trimmed(one.vector[place], density) for place in places]) for one in updates]
    values = torch.stack(rows)
    weights = torch.tensor([one.share for one in updates], dtype=torch.float64)[:, None]
    agrees = values.sign() == (weights * values).sum(0).sign()
    total = (weights * agrees).sum(0)
    return ((weights * values * agrees).sum(0) / total).nan_to_num(0.0)


@pytest.mark.parametrize("density", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("num_clients", [1, 2, 7])
def test_ties_is_that_of_a_dense_computation(num_clients: int, density: float) -> None:
    for seed in range(5):
        updates = some_updates(num_clients, seed)
        found = merged(lambda: ties(density), updates).double()
        assert torch.allclose(found, dense(updates, density), rtol=3e-7, atol=1e-12)


@pytest.mark.parametrize("density", [0.05, 0.3, 0.8])
def test_each_tensor_is_trimmed_by_itself(density: float) -> None:
    for seed in range(5):
        updates = some_updates(4, seed)
        for one in updates:
            one.vector[LAYOUT.places[1]] *= 100.0  # the largest coordinates are all in one tensor
        found = merged(lambda: ties(density, "tensor"), updates).double()
        expected = dense(updates, density, LAYOUT.places)
        assert torch.allclose(found, expected, rtol=3e-7, atol=1e-12)
        assert not torch.equal(found, merged(lambda: ties(density), updates).double())


def test_the_minority_is_left_out_and_not_watered_down() -> None:
    values = {0: (3.0, 1.0), 1: (-1.0, 1.0), 2: (2.0, -4.0)}
    updates = [
        Sent(client, torch.tensor([*pair, *[0.0] * (SIZE - 2)]), share)
        for (client, pair), share in zip(values.items(), (0.25, 0.25, 0.5), strict=True)
    ]
    found = merged(lambda: ties(1.0), updates)
    # 0.75 - 0.25 + 1 > 0: clients 0 and 2; 0.25 + 0.25 - 2 < 0: client 2 alone
    assert found[:2].tolist() == pytest.approx([(0.25 * 3 + 0.5 * 2) / 0.75, -4.0])
