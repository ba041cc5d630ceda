"""FlexLoRA in a round: tiers of different ranks, heads beside the pairs, several workers."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from scaling_fl.conformance.rounds import LAYOUT, SIZE, Sent, merge_on, some_updates
from scaling_fl.conformance.workers import on_workers
from scaling_fl.core.exchange import Exchange, SingleExchange
from scaling_fl.federation.link import Link
from scaling_fl.methods.merging.low_rank import flexlora
from scaling_fl.methods.pairs import Pair, pairs_of
from scaling_fl.methods.wire.holding import RankHolding

START = torch.randn(SIZE, generator=torch.Generator().manual_seed(1))
HOLDING = RankHolding(LAYOUT, 1)
LINKS = [Link(SIZE), Link(SIZE, holding=HOLDING)]
HEAD = slice(LAYOUT.offsets[-2], SIZE)


HELD = torch.zeros(SIZE).index_fill_(0, HOLDING.coordinates(b""), 1.0)


def of_two_tiers(seed: int) -> list[Sent]:
    """Odd clients hold rank 1 and change nothing else."""
    return [replace(one, tier=1) if one.client % 2 else one for one in some_updates(5, seed)]


def product(pair: Pair, vector: Tensor) -> Tensor:
    return pair.b_of(vector).double() @ pair.a_of(vector).double()


def mean_products(updates: list[Sent]) -> list[Tensor]:
    """Average the dense products of what the clients came to, each of its rank."""
    trained = [(START + one.vector) * (HELD if one.tier else 1) for one in updates]
    return [
        torch.stack(
            [
                one.share * product(pair, vector)
                for one, vector in zip(updates, trained, strict=True)
            ]
        ).sum(0)
        for pair in pairs_of(LAYOUT)
    ]


@pytest.mark.parametrize("seed", range(4))
def test_the_new_products_are_the_nearest_of_the_rank_to_the_mean_product(seed: int) -> None:
    updates = of_two_tiers(seed)
    after, step = merge_on(SingleExchange(1), flexlora(), updates, updates, START, LINKS)
    squares, lost = 0.0, 0.0
    for pair, mean in zip(pairs_of(LAYOUT), mean_products(updates), strict=True):
        u, values, vt = torch.linalg.svd(mean)
        best = u[:, :2] * values[:2] @ vt[:2]
        assert torch.allclose(product(pair, after), best, atol=1e-5)
        a = pair.a_of(after).double()
        assert torch.allclose(a @ a.T, torch.eye(2, dtype=torch.float64), atol=1e-5)
        squares += float(values.square().sum())
        lost += float(values[2:].square().sum())
    assert step.metrics["merge.residual"] == pytest.approx((lost / squares) ** 0.5, rel=1e-4)
    heads = torch.stack([one.vector[HEAD] * one.share for one in updates]).sum(0)
    assert torch.allclose(after[HEAD], START[HEAD] + heads, atol=1e-6)


def test_a_tier_of_rank_one_receives_the_nearest_matrix_of_rank_one() -> None:
    updates = of_two_tiers(9)
    after, _ = merge_on(SingleExchange(1), flexlora(), updates, updates, START, LINKS)
    for pair, mean in zip(pairs_of(LAYOUT), mean_products(updates), strict=True):
        u, values, vt = torch.linalg.svd(mean)
        assert torch.allclose(product(pair, after * HELD), values[0] * u[:, :1] @ vt[:1], atol=1e-5)


def test_two_and_three_workers_come_to_the_same_bits() -> None:
    updates = of_two_tiers(3)
    alone, _ = merge_on(SingleExchange(1), flexlora(), updates, updates, START, LINKS)

    def work(exchange: Exchange) -> Tensor:
        mine = [one for one in updates if one.client % exchange.size == exchange.rank]
        return merge_on(exchange, flexlora(), mine, updates, START, LINKS)[0]

    for size in (2, 3):
        for vector in on_workers(size, work):
            assert torch.equal(vector, alone)
