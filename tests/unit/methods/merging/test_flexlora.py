"""FlexLoRA in a round: tiers of different ranks, heads beside the pairs, several workers."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from scaling_fl.conformance.rounds import LAYOUT, SIZE, Sent, merge_on, some_updates
from scaling_fl.conformance.workers import on_workers
from scaling_fl.core.exchange import Exchange, SingleExchange
from scaling_fl.core.state import GlobalState
from scaling_fl.core.vector import Layout
from scaling_fl.federation.link import Link
from scaling_fl.federation.server import Server
from scaling_fl.methods.merging.low_rank import flexlora
from scaling_fl.methods.pairs import Pair, pairs_of
from scaling_fl.methods.server_optimisers import sgd
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


WIDE = Layout(("q.lora_A.default", "q.lora_B.default"), ((16, 40), (30, 16)))


def shares_of_energy(weigh_by: str, num_rounds: int) -> list[float]:
    """Return the share of the energy above rank 4 after each round of clients that do not train.

    A client each holds ranks 4, 8 and 16, and all 16 components are equally large at first.
    """
    (pair,) = pairs_of(WIDE)
    links = [Link(WIDE.size, holding=RankHolding(WIDE, rank)) for rank in (4, 8, 16)]
    rng = torch.Generator().manual_seed(2)
    state = GlobalState(torch.zeros(WIDE.size))
    for factor, columns in (("a", 40), ("b", 30)):
        q = torch.linalg.qr(torch.randn(columns, 16, generator=rng)).Q
        state.vector[getattr(pair, factor)] = (q.T if factor == "a" else q).flatten()
    server = Server(
        SingleExchange(1),
        flexlora(weigh_by),
        sgd(1.0),
        torch.empty(WIDE.size),
        links=links,
        min_clients=1,
        layout=WIDE,
    )
    found = []
    for _ in range(num_rounds):
        still = [Sent(tier, torch.zeros(WIDE.size), 1 / 3, tier=tier) for tier in range(3)]
        replies = iter([one.reply(links[one.tier]) for one in still])
        shares = dict.fromkeys(range(3), 1 / 3)
        state, _ = server.step(state, server.downloads(state), shares, replies)
        energy = torch.linalg.svdvals(product(pair, state.vector)).square()
        found.append(float(energy[4:].sum() / energy.sum()))
    return found


def test_the_components_of_few_clients_vanish_unless_they_are_weighed_by_rank() -> None:
    """At first 12 of 16; a round multiplies components 5 to 8 by 2/3, and 9 to 16 by 1/3."""
    fades = shares_of_energy("client", 30)
    assert fades[0] == pytest.approx((4 * 4 + 8) / (9 * 4 + 4 * 4 + 8), abs=1e-5)
    assert fades[0] == pytest.approx(0.400, abs=1e-3)
    assert fades[4] == pytest.approx((2 / 3) ** 10 / (1 + (2 / 3) ** 10), abs=1e-4)
    assert fades[29] < 1e-9
    assert shares_of_energy("rank", 30) == pytest.approx([0.75] * 30, abs=1e-5)


def test_by_rank_a_component_is_averaged_over_its_holders() -> None:
    updates = of_two_tiers(4)
    after, _ = merge_on(SingleExchange(1), flexlora("rank"), updates, updates, START, LINKS)
    full = sum(one.share for one in updates if not one.tier)
    for pair in pairs_of(LAYOUT):
        mean = torch.zeros(pair.shape, dtype=torch.float64)
        for one in updates:
            vector = (START + one.vector).double()
            a, b = pair.a_of(vector), pair.b_of(vector)
            mean += one.share * torch.outer(b[:, 0], a[0])
            if not one.tier:
                mean += one.share / full * torch.outer(b[:, 1], a[1])
        u, values, vt = torch.linalg.svd(mean)
        assert torch.allclose(product(pair, after), u[:, :2] * values[:2] @ vt[:2], atol=1e-5)
