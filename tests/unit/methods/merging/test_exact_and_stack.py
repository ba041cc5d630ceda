"""FedEx-LoRA and FLoRA in rounds: nothing of the mean product is lost, for the base moves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from scaling_fl.conformance.rounds import LAYOUT, SIZE, Sent, merge_on, some_updates
from scaling_fl.conformance.workers import on_workers
from scaling_fl.core.exchange import Exchange, SingleExchange
from scaling_fl.core.state import GlobalState
from scaling_fl.core.vector import Layout
from scaling_fl.federation.base import MOVED, BaseSizes, product, send_base
from scaling_fl.federation.link import Link
from scaling_fl.federation.server import Server
from scaling_fl.methods.merging.moving import exact, stack
from scaling_fl.methods.pairs import pairs_of
from scaling_fl.methods.server_optimisers import sgd
from scaling_fl.methods.wire.direction import Payload
from scaling_fl.methods.wire.holding import RankHolding

WIDE = Layout(
    ("q.lora_A.default", "q.lora_B.default", "v.lora_A.default", "v.lora_B.default", "head"),
    ((2, 40), (30, 2), (2, 20), (50, 2), (3,)),
)
"""Layers so wide that the factors of a few clients are smaller than the matrices."""
MERGES = {"exact": exact, "stack": stack}
both = pytest.mark.parametrize("name", sorted(MERGES))


@dataclass
class Rounds:
    """Rounds of a merge on a layout; odd clients hold rank 1."""

    name: str
    layout: Layout = WIDE
    state: GlobalState = field(init=False)

    def __post_init__(self) -> None:
        rng = torch.Generator().manual_seed(3)
        self.state = GlobalState(torch.randn(self.layout.size, generator=rng))
        if self.name == "stack":
            for pair in pairs_of(self.layout):
                self.state.vector[pair.b] = 0.0
        holding = RankHolding(self.layout, 1)
        self.held = torch.zeros(self.layout.size).index_fill_(0, holding.coordinates(b""), 1.0)
        self.links = [Link(self.layout.size), Link(self.layout.size, holding=holding)]
        self.server = Server(
            SingleExchange(1),
            MERGES[self.name](),
            sgd(1.0),
            torch.empty(self.layout.size),
            links=self.links,
            min_clients=1,
            layout=self.layout,
        )

    def updates(self, cohort: Sequence[int]) -> list[Sent]:
        rng = torch.Generator().manual_seed(self.state.round)
        weights = torch.rand(len(cohort), generator=rng, dtype=torch.float64)
        shares = (weights / weights.sum()).tolist() if cohort else []
        made = []
        for client, share in zip(cohort, shares, strict=True):
            vector = torch.randn(self.layout.size, generator=rng) * 0.3
            made.append(Sent(client, vector, share, tier=client % 2))
        return made

    def trained(self, one: Sent) -> Tensor:
        return (self.state.vector + one.vector) * (self.held if one.tier else 1)

    def step(self, updates: Sequence[Sent]) -> None:
        shares = {one.client: one.share for one in updates}
        downloads = self.server.downloads(self.state)
        replies = [one.reply(self.links[one.tier]) for one in updates]
        self.state, _ = self.server.step(self.state, downloads, shares, iter(replies))

    def products(self, vector: Tensor) -> list[Tensor]:
        return [p.b_of(vector).double() @ p.a_of(vector).double() for p in pairs_of(self.layout)]

    def moved(self) -> list[Tensor]:
        """What the base moved by so far: (out, in) of each pair."""
        shapes = [pair.shape for pair in pairs_of(self.layout)]
        flat = self.state.memory.server.get(MOVED)
        if flat is None:
            return [torch.zeros(shape, dtype=torch.float64) for shape in shapes]
        parts = flat.double().split([math.prod(shape) for shape in shapes])
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


ONE_PAIR = Layout(("q.lora_A.default", "q.lora_B.default"), ((1, 3), (2, 1)))
CLIENTS = [
    Sent(0, torch.tensor([1.0, 0, 1, 1, 2]), 0.25),
    Sent(2, torch.tensor([2.0, 1, 0, 0, 1]), 0.75),
]
"""A1 = [1 0 1], B1 = [1 2]', A2 = [2 1 0], B2 = [0 1]'."""


def by_hand(name: str) -> Rounds:
    rounds = Rounds(name, ONE_PAIR)
    rounds.state = GlobalState(torch.zeros(5))
    rounds.step(CLIENTS)
    return rounds


def test_by_hand_the_base_takes_what_the_mean_of_factors_lacks() -> None:
    rounds = by_hand("exact")
    (found,), (adapter,) = rounds.moved(), rounds.products(rounds.state.vector)
    assert adapter.tolist() == [[0.4375, 0.1875, 0.0625], [2.1875, 0.9375, 0.3125]]
    assert found.tolist() == [[-0.1875, -0.1875, 0.1875], [-0.1875, -0.1875, 0.1875]]


def test_by_hand_the_base_takes_the_mean_product_and_b_is_zero() -> None:
    rounds = by_hand("stack")
    assert rounds.moved()[0].tolist() == [[0.25, 0, 0.25], [2, 0.75, 0.5]]
    a, b = rounds.state.vector.split([3, 2])
    assert not b.any()
    assert a.unique().numel() == 3
    assert a.abs().max() <= 3**-0.5


@both
def test_over_rounds_of_some_clients_of_two_ranks_nothing_is_lost(name: str) -> None:
    rounds = Rounds(name)
    for cohort in ([0, 1, 2, 3], [1, 4], [2], [], [0, 1, 3, 5, 6]):
        updates = rounds.updates(cohort)
        trained = [(one.share, rounds.trained(one)) for one in updates]
        expected = [
            moved + sum(share * rounds.products(vector)[pair] for share, vector in trained)
            if trained
            else moved + rounds.products(rounds.state.vector)[pair]
            for pair, moved in enumerate(rounds.moved())
        ]
        head = rounds.state.vector[-3:] + sum(one.share * one.vector[-3:] for one in updates)
        rounds.step(updates)
        adapters = rounds.products(rounds.state.vector)
        for found, adapter, wanted in zip(rounds.moved(), adapters, expected, strict=True):
            assert torch.allclose(found + adapter, wanted, rtol=1e-5, atol=2e-6)
        assert torch.allclose(rounds.state.vector[-3:], head, atol=1e-6)


def test_exact_leaves_the_adapter_of_the_mean() -> None:
    rounds = Rounds("exact")
    updates = rounds.updates([0, 2])
    mean = rounds.state.vector + sum(one.share * one.vector for one in updates)
    rounds.step(updates)
    assert torch.allclose(rounds.state.vector, mean, atol=1e-6)


def test_fresh_adapters_differ_from_round_to_round() -> None:
    rounds, found = Rounds("stack"), []
    for _ in range(3):
        rounds.step(rounds.updates([0]))
        found.append(rounds.state.vector[pairs_of(WIDE)[0].a])
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])


@dataclass
class Client:
    """What a client keeps, and makes of the payloads that it receives."""

    base: Tensor
    num_bytes: int = 0

    def receive(self, payload: Payload | None) -> None:
        if payload is None:
            return
        arrived = Payload.from_bytes(bytes(payload), payload.size).decode()
        self.num_bytes += len(bytes(payload))
        if payload.size == self.base.numel():
            self.base = arrived
            return
        shapes = [pair.shape for pair in pairs_of(WIDE)]
        rank = payload.size // sum(sum(shape) for shape in shapes)
        sizes = [side * rank for shape in shapes for side in shape]
        parts = iter(arrived.split(sizes))
        moves = [
            product(next(parts).view(out, rank), next(parts).view(rank, num_in))
            for out, num_in in shapes
        ]
        self.base = torch.cat(moves) + self.base


@both
def test_who_missed_rounds_has_the_same_bits_as_who_did_not_and_pays_more(name: str) -> None:
    rounds = Rounds(name)
    size = BaseSizes(pairs_of(WIDE), [], of_server=0).moved
    always, seldom = Client(torch.zeros(size)), Client(torch.zeros(size))
    for cohort in ([0, 1], [0], [0], [0, 1, 2], [0, 1]):
        memory = rounds.state.memory.server
        always.receive(send_base(memory, 0))
        if 1 in cohort:
            seldom.receive(send_base(memory, 1))
            assert torch.equal(seldom.base, always.base)
            assert torch.equal(seldom.base, memory.get(MOVED, torch.zeros(size)))
        rounds.step(rounds.updates(cohort))
    assert always.num_bytes < 4 * 4 * size


@both
def test_bytes_and_memory_are_as_predicted(name: str) -> None:
    cohorts = [[], [0, 1], [1, 2, 3], [], [0, 2], [2], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [0]]
    ranks = [2 - client % 2 for client in range(12)]
    sizes = BaseSizes(pairs_of(WIDE), ranks, of_server=2 if name == "exact" else 0)
    rounds, found = Rounds(name), []
    for number, cohort in enumerate(cohorts, start=1):
        payloads = [send_base(rounds.state.memory.server, client) for client in cohort]
        found.append(sum(len(bytes(payload)) for payload in payloads if payload))
        rounds.step(rounds.updates(cohort))
        remembered = sum(tensor.nbytes for tensor in rounds.state.memory.server.values())
        assert remembered == sizes.memory_bytes(cohorts[:number])
        # However many clients there are, it is no more than the matrices twice, and their numbers.
        assert remembered < 2 * 4 * sizes.moved + 8 * len(cohort) + 1
    assert found == sizes.download_bytes(cohorts)
    assert len(set(found)) > 4


@both
def test_two_and_three_workers_come_to_the_same_bits(name: str) -> None:
    holding = RankHolding(LAYOUT, 1)
    links = [Link(SIZE), Link(SIZE, holding=holding)]
    start = torch.randn(SIZE, generator=torch.Generator().manual_seed(1))
    updates = [
        Sent(one.client, one.vector, one.share, tier=1) if one.client % 2 else one
        for one in some_updates(5, 3)
    ]
    alone, _ = merge_on(SingleExchange(1), MERGES[name](), updates, updates, start, links)

    def work(exchange: Exchange) -> Tensor:
        mine = [one for one in updates if one.client % exchange.size == exchange.rank]
        return merge_on(exchange, MERGES[name](), mine, updates, start, links)[0]

    for size in (2, 3):
        for vector in on_workers(size, work):
            assert torch.equal(vector, alone)
    assert alone.numel() > SIZE
