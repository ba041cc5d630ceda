"""TIES against a dense computation in fp64, as the paper has it."""

import pytest
import torch

from scaling_fl.conformance.rounds import SIZE, Sent, merged, some_updates
from scaling_fl.methods.merging.signs import ties


def dense(updates: list[Sent], density: float) -> torch.Tensor:
    """Trim, elect and average the updates at once. Source: arXiv 2306.01708, algorithm 1."""
    count = int(SIZE * density)
    trimmed = torch.stack(
        [
            torch.zeros(SIZE, dtype=torch.float64).index_copy(
                0, (top := one.vector.abs().topk(count).indices), one.vector.double()[top]
            )
            for one in updates
        ]
    )
    weights = torch.tensor([one.share for one in updates], dtype=torch.float64)[:, None]
    elected = (weights * trimmed).sum(0).sign()
    agrees = trimmed.sign() == elected
    total = (weights * agrees).sum(0)
    return ((weights * trimmed * agrees).sum(0) / total).nan_to_num(0.0)


@pytest.mark.parametrize("density", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("num_clients", [1, 2, 7])
def test_ties_is_that_of_a_dense_computation(num_clients: int, density: float) -> None:
    for seed in range(5):
        updates = some_updates(num_clients, seed)
        found = merged(lambda: ties(density), updates).double()
        assert torch.allclose(found, dense(updates, density), rtol=3e-7, atol=1e-12)


def test_the_minority_is_left_out_and_not_watered_down() -> None:
    values = {0: (3.0, 1.0), 1: (-1.0, 1.0), 2: (2.0, -4.0)}
    updates = [
        Sent(client, torch.tensor([*pair, *[0.0] * (SIZE - 2)]), share)
        for (client, pair), share in zip(values.items(), (0.25, 0.25, 0.5), strict=True)
    ]
    found = merged(lambda: ties(1.0), updates)
    # 0.75 - 0.25 + 1 > 0: clients 0 and 2; 0.25 + 0.25 - 2 < 0: client 2 alone
    assert found[:2].tolist() == pytest.approx([(0.25 * 3 + 0.5 * 2) / 0.75, -4.0])
