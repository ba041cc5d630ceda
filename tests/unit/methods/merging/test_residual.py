"""What a merge loses of the mean of products, against dense matrices in fp64; none is square."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

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
from scaling_fl.methods.merging.means import mean
from scaling_fl.methods.merging.merge import Merge
from scaling_fl.methods.merging.moving import exact, stack
from scaling_fl.methods.merging.products import on_products
from scaling_fl.methods.merging.robust import median
from scaling_fl.methods.merging.signs import ties
from scaling_fl.methods.pairs import pairs_of
from scaling_fl.methods.server_optimisers import sgd
from scaling_fl.methods.wire.direction import Direction
from scaling_fl.methods.wire.holding import RankHolding

WIDE = Layout(
    ("q.lora_A.default", "q.lora_B.default", "v.lora_A.default", "v.lora_B.default"),
    ((8, 96), (64, 8), (8, 48), (80, 8)),
)
HOLDING = RankHolding(LAYOUT, 1)
LINKS = [Link(SIZE), Link(SIZE, holding=HOLDING)]
START = torch.randn(SIZE, generator=torch.Generator().manual_seed(1))
MERGES: dict[str, Callable[[], Merge]] = {
    "mean": mean,
    "ties": partial(ties, density=0.2),
    "median": median,
    "flexlora": flexlora,
}


def products(vector: Tensor, layout: Layout = LAYOUT) -> Tensor:
    vector = vector.double()
    return torch.cat([(p.b_of(vector) @ p.a_of(vector)).flatten() for p in pairs_of(layout)])


def of_two_tiers(seed: int) -> list[Sent]:
    """Odd clients hold rank 1 and change nothing else."""
    return [replace(one, tier=1) if one.client % 2 else one for one in some_updates(5, seed)]


def dense(after: Tensor, updates: Sequence[Sent]) -> float:
    """Compute the residual from dense matrices."""
    held = torch.zeros(SIZE).index_fill_(0, HOLDING.coordinates(b""), 1.0)
    ideal = sum(
        one.share * products((START + one.vector) * (held if one.tier else 1)) for one in updates
    )
    assert isinstance(ideal, Tensor)
    return float((ideal - products(after)).norm() / ideal.norm())


def step(merge: Merge, layout: Layout, start: Tensor, updates: Sequence[Sent]) -> float:
    """Merge in a layout of one's own, and return the residual."""
    server = Server(
        SingleExchange(1),
        merge,
        sgd(1.0),
        torch.empty(layout.size),
        links=[Link(layout.size)],
        min_clients=1,
        layout=layout,
    )
    state = GlobalState(start)
    shares = {one.client: one.share for one in updates}
    replies = iter([one.reply(Link(layout.size)) for one in updates])
    return server.step(state, server.downloads(state), shares, replies)[1].metrics["merge.residual"]


def test_two_clients_by_hand() -> None:
    """W = [[.25 0 .25], [2 .75 .5]]; the mean of factors is .1875 away everywhere: of |W| 2.222."""
    layout = Layout(("q.lora_A.default", "q.lora_B.default"), ((1, 3), (2, 1)))
    updates = [
        Sent(0, torch.tensor([1.0, 0, 1, 1, 2]), 0.25),
        Sent(2, torch.tensor([2.0, 1, 0, 0, 1]), 0.75),
    ]
    ideal = torch.tensor([0.25, 0.0, 0.25, 2.0, 0.75, 0.5], dtype=torch.float64)
    found = step(mean(), layout, torch.zeros(5), updates)
    assert found == pytest.approx(6**0.5 * 0.1875 / float(ideal.norm()), rel=1e-7)
    best = step(flexlora(), layout, torch.zeros(5), updates)
    assert best == pytest.approx(0.2076 / float(ideal.norm()), abs=2e-5)


@pytest.mark.parametrize("name", sorted(MERGES))
@pytest.mark.parametrize("seed", range(3))
def test_it_is_that_of_dense_matrices(name: str, seed: int) -> None:
    updates = of_two_tiers(seed)
    after, done = merge_on(SingleExchange(1), MERGES[name](), updates, updates, START, LINKS)
    found = done.metrics["merge.residual"]
    assert found == pytest.approx(dense(after, updates), rel=1e-6)
    assert 0.001 < found < 2


@pytest.mark.parametrize("make", [exact, stack])
def test_what_moves_the_base_loses_nothing(make: Callable[[], Merge]) -> None:
    updates = of_two_tiers(2)
    _, done = merge_on(SingleExchange(1), make(), updates, updates, START, LINKS)
    assert done.metrics["merge.residual"] < 3e-7


@pytest.mark.parametrize("name", ["mean", "flexlora"])
def test_what_a_download_leaves_out_is_not_lost(name: str) -> None:
    """A client that received a quarter of the vector and did not move has nothing to lose."""
    links = [Link(SIZE, Direction(density=0.25))]
    still = [Sent(0, torch.zeros(SIZE), 1.0)]
    _, done = merge_on(SingleExchange(1), MERGES[name](), still, still, START, links)
    assert done.metrics["merge.residual"] < 1e-6


@pytest.mark.parametrize(
    "make", [flexlora, lambda: on_products(mean(), 1.0)], ids=["flexlora", "products"]
)
def test_factors_of_more_components_than_sides_lose_nothing(make: Callable[[], Merge]) -> None:
    layout = Layout(("q.lora_A.default", "q.lora_B.default"), ((8, 5), (3, 8)))
    rng = torch.Generator().manual_seed(7)
    updates = [Sent(client, torch.randn(64, generator=rng), 0.5) for client in range(2)]
    assert step(make(), layout, torch.randn(64, generator=rng), updates) < 1e-6


@pytest.mark.parametrize("size", [1.0, 0.03, 1e-3])
def test_a_small_one_has_as_many_digits(size: float) -> None:
    """Of clients that moved little in opposite directions: the residual is the square of that."""
    layout, rng = WIDE, torch.Generator().manual_seed(5)
    start = torch.randn(layout.size, generator=rng)
    # What the clients come to is exact in fp32, so that nothing but the residual is small.
    start = (start * 2**10).round() / 2**10
    moved = (torch.randn(layout.size, generator=rng) * 2**10).round() * 2.0**-10
    moved *= 2.0 ** round(torch.tensor(size).log2().item())
    updates = [Sent(0, moved, 0.5), Sent(1, -moved, 0.5)]
    expected = products(moved, layout).norm()
    ideal = products(start, layout) + products(moved, layout)
    found = step(mean(), layout, start, updates)
    assert found == pytest.approx(float(expected / ideal.norm()), rel=1e-6)


def in_common(moved_a: float, moved_b: float, seed: int) -> list[Sent]:
    """Eight clients that move from a common A and a common B, by shares of a random one."""
    rng = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        return torch.randn(WIDE.size, generator=rng)

    is_a = torch.zeros(WIDE.size, dtype=torch.bool)
    for pair in pairs_of(WIDE):
        is_a[pair.a] = True
    common = draw()
    return [Sent(k, common + draw() * torch.where(is_a, moved_a, moved_b), 1 / 8) for k in range(8)]


def test_it_tells_a_common_start_from_factors_that_have_nothing_in_common() -> None:
    """The first setting is one round of clients that began with one A, the second is synthetic."""
    start = torch.zeros(WIDE.size)
    near = [step(mean(), WIDE, start, in_common(0.1, 0.5, seed)) for seed in range(3)]
    apart = [
        Sent(k, torch.randn(WIDE.size, generator=torch.Generator().manual_seed(k)), 1 / 8)
        for k in range(8)
    ]
    assert near == pytest.approx([0.016] * 3, abs=0.001)
    assert step(mean(), WIDE, start, apart) == pytest.approx(0.93, abs=0.01)


def test_two_and_three_workers_come_to_the_same_bits() -> None:
    updates = of_two_tiers(3)
    _, alone = merge_on(SingleExchange(1), mean(), updates, updates, START, LINKS)

    def work(exchange: Exchange) -> float:
        mine = [one for one in updates if one.client % exchange.size == exchange.rank]
        found = merge_on(exchange, mean(), mine, updates, START, LINKS)[1]
        return found.metrics["merge.residual"]

    for size in (2, 3):
        assert on_workers(size, work) == [alone.metrics["merge.residual"]] * size
