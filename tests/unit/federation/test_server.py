"""The server's laws: placement, order and left-out clients change nothing that they must not."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scaling_fl.conformance.workers import on_workers
from scaling_fl.core.errors import UserError
from scaling_fl.core.exact_sum import LIMIT
from scaling_fl.core.exchange import Exchange, SingleExchange
from scaling_fl.core.records import ClientReport
from scaling_fl.core.state import GlobalState
from scaling_fl.core.vector import Layout
from scaling_fl.federation.arrivals import Reply
from scaling_fl.federation.client_end import ClientEnd
from scaling_fl.federation.downloads import Downloads
from scaling_fl.federation.link import Link
from scaling_fl.federation.privacy import Privacy
from scaling_fl.federation.server import NO_LAYOUT, Server, Step
from scaling_fl.federation.server_end import ServerEnd
from scaling_fl.methods.merging.means import mean, mean_of_senders
from scaling_fl.methods.merging.merge import Merge
from scaling_fl.methods.server_optimisers import ServerOptimiser, sgd
from scaling_fl.methods.wire.codecs import CODECS
from scaling_fl.methods.wire.direction import PLAIN, Direction, Payload
from scaling_fl.methods.wire.holding import RankHolding

SIZE = 300
START = torch.randn(SIZE, generator=torch.Generator().manual_seed(1))
PLAIN_LINK = Link(SIZE)


def make_reply(
    client: int, *, scale: float = 0.01, is_lost: bool = False, num_examples: int = 10
) -> Reply:
    vector = torch.randn(SIZE, generator=torch.Generator().manual_seed(100 + client)) * scale
    return reply_of(client, vector, is_lost=is_lost, num_examples=num_examples)


def reply_of(
    client: int, vector: Tensor, *, is_lost: bool = False, num_examples: int = 10, tier: int = 0
) -> Reply:
    """Make a client's reply whose update is ``vector``; a client that is lost has a loss of NaN."""
    report = ClientReport(
        round=5,
        client=client,
        num_examples=num_examples,
        metrics={"loss": math.nan if is_lost else 0.5, "accuracy": 0.5},
        download_bytes=4 * SIZE,
        upload_bytes=4 * SIZE,
        seconds=1.0,
        tier=tier,
    )
    return Reply(report=report, payload=Payload(SIZE, 4 * SIZE, vector=vector))


def sent_by(link: Link, reply: Reply, *, tier: int = 0) -> Reply:
    """Send a reply's update by a link."""
    received = Downloads([link], GlobalState(START), 1).received(0)
    vector = vector_of(reply).clone()
    payload, _ = ClientEnd(link).send(vector, received, 1, {})
    return replace(reply, payload=payload, report=replace(reply.report, tier=tier))


def vector_of(reply: Reply) -> Tensor:
    return reply.payload.decode()


def make_server(
    exchange: Exchange | None = None,
    *,
    min_clients: int = 1,
    optimiser: ServerOptimiser | None = None,
    merge: Merge | None = None,
    links: Sequence[Link] = (PLAIN_LINK,),
    privacy: Privacy | None = None,
    layout: Layout = NO_LAYOUT,
) -> Server:
    return Server(
        exchange or SingleExchange(1),
        merge or mean(),
        optimiser or sgd(1.0),
        torch.empty(SIZE),
        links=links,
        min_clients=min_clients,
        privacy=privacy,
        layout=layout,
    )


def play(
    server: Server, state: GlobalState, shares: dict[int, float], replies: list[Reply]
) -> tuple[GlobalState, Step]:
    return server.step(state, server.downloads(state), shares, iter(replies))


def step(
    replies: list[Reply], shares: dict[int, float], exchange: Exchange | None = None, **options: Any
) -> tuple[Tensor, Step]:
    """Do one server step from ``START`` and return the new global vector."""
    state, done = play(make_server(exchange, **options), GlobalState(START), shares, replies)
    return state.vector, done


def dense(replies: list[Reply], shares: dict[int, float]) -> tuple[Tensor, float, float]:
    """Compute the mean of the usable updates, its norm and the drift, all at once in fp64."""
    usable = [
        (vector_of(reply).double(), shares[reply.report.client])
        for reply in replies
        if math.isfinite(reply.report.metrics["loss"])
    ]
    total = sum(share for _, share in usable)
    mean = sum((vector * share / total for vector, share in usable), torch.zeros(SIZE))
    squares = sum(share / total * float((vector - mean).square().sum()) for vector, share in usable)
    return mean, float(mean.norm()), math.sqrt(squares)


def some_shares(clients: int, seed: int) -> dict[int, float]:
    rng = random.Random(seed)
    weights = [rng.randint(1, 50) for _ in range(clients)]
    return {client: weight / sum(weights) for client, weight in enumerate(weights)}


@settings(max_examples=25)
@given(
    placement=st.lists(st.integers(0, 3), min_size=1, max_size=9),
    seed=st.integers(0, 99),
    lost=st.sets(st.integers(0, 8), max_size=3),
)
def test_any_split_over_workers_equals_one_worker(
    placement: list[int], seed: int, lost: set[int]
) -> None:
    clients = len(placement)
    failed = {client for client in lost if client < clients - 1}  # one is left at least
    updates = [make_reply(c, is_lost=c in failed) for c in range(clients)]
    shares = some_shares(clients, seed)
    alone, step_alone = step(updates, shares)

    def work(exchange: Exchange) -> tuple[Tensor, Step]:
        mine = [u for u, worker in zip(updates, placement, strict=True) if worker == exchange.rank]
        return step(mine, shares, exchange)

    for vector, done in on_workers(4, work):
        assert torch.equal(vector, alone)
        assert done.clients == step_alone.clients
        assert (done.update_norm, done.metrics) == (step_alone.update_norm, step_alone.metrics)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_clients_changes_nothing(seed: int) -> None:
    updates = [make_reply(client) for client in range(7)]
    shares = some_shares(7, seed)
    first, step_first = step(updates, shares)
    random.Random(seed).shuffle(updates)
    second, step_second = step(updates, shares)
    assert torch.equal(first, second)
    assert step_first.clients == step_second.clients
    assert step_first.update_norm == step_second.update_norm
    assert step_first.metrics == step_second.metrics


@settings(max_examples=15)
@given(
    placement=st.lists(st.integers(0, 2), min_size=1, max_size=7),
    seed=st.integers(0, 99),
    lost=st.booleans(),
)
def test_any_split_and_order_is_one_worker_when_divided_by_senders(
    placement: list[int], seed: int, lost: bool
) -> None:
    link, clients = Link(SIZE, PLAIN, Direction(density=0.3)), len(placement)
    options: dict[str, Any] = {"links": [link], "merge": mean_of_senders()}
    updates = [
        sent_by(link, make_reply(client, is_lost=lost and 0 < client == clients - 1))
        for client in range(clients)
    ]
    shares = some_shares(clients, seed)
    alone, step_alone = step(updates, shares, **options)
    shuffled = random.Random(seed).sample(updates, clients)
    assert torch.equal(step(shuffled, shares, **options)[0], alone)
    usable = [reply for reply in updates if math.isfinite(reply.report.metrics["loss"])]
    sent = torch.cat([r.payload.indices for r in usable if r.payload.indices is not None]).unique()
    untouched = torch.ones(SIZE, dtype=torch.bool).index_fill(0, sent, False)
    assert torch.equal(alone[untouched], START[untouched])

    def work(exchange: Exchange) -> tuple[Tensor, Step]:
        mine = [u for u, worker in zip(updates, placement, strict=True) if worker == exchange.rank]
        return step(mine, shares, exchange, **options)

    for vector, done in on_workers(3, work):
        assert torch.equal(vector, alone)
        assert done == replace(step_alone, exchange_seconds=done.exchange_seconds)


LORA = Layout(("x.lora_A.default.weight", "x.lora_B.default.weight"), ((4, 50), (25, 4)))


@pytest.mark.parametrize("merge", [mean, mean_of_senders])
@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("codec", sorted(CODECS))
def test_equal_clients_are_a_fixed_point_of_what_arrives(
    codec: str, density: float, merge: Callable[[], Merge]
) -> None:
    """Of their tier's, that is: what a codec and a density do to an update is done to it once."""
    for holding in (None, RankHolding(LORA, 2)):
        link = Link(SIZE, PLAIN, Direction(codec=codec, density=density), holding=holding)
        one = sent_by(link, make_reply(0))
        sent = ServerEnd(link).download(START, 1)
        arrived, _ = ServerEnd(link).update(one.payload, sent, START)
        given = [replace(one, report=replace(one.report, client=client)) for client in range(5)]
        after, _ = step(given, some_shares(5, 3), links=[link], merge=merge())
        assert torch.equal(after, START + arrived)


def test_equal_clients_of_unequal_tiers_are_a_fixed_point_only_of_the_senders_mean() -> None:
    """Divided by all, what only the larger tiers hold shrinks to their share of the clients."""
    links = [Link(SIZE, holding=RankHolding(LORA, rank)) for rank in (1, 2, 4)]
    shares, vector = {0: 0.25, 1: 0.25, 2: 0.5}, vector_of(make_reply(0))
    given = [sent_by(link, reply_of(tier, vector), tier=tier) for tier, link in enumerate(links)]
    after, _ = step(given, shares, links=links, merge=mean_of_senders())
    assert torch.equal(after, START + vector)
    divided, _ = step(given, shares, links=links)
    held = torch.zeros(SIZE)
    for tier, link in enumerate(links):
        assert link.holding
        held[link.holding.coordinates(b"")] += shares[tier]
    assert sorted(set(held.tolist())) == [0.5, 0.75, 1.0]
    assert torch.allclose(divided, START + vector * held, rtol=0, atol=1e-7)


@pytest.mark.parametrize("clients", [1, 2, 3, 7, 64])
def test_equal_clients_are_a_fixed_point(clients: int) -> None:
    """All sending the same is one sending it, to the bit, whatever their shares."""
    vector = vector_of(make_reply(0))
    updates = [reply_of(client, vector.clone()) for client in range(clients)]
    after, done = step(updates, some_shares(clients, 3))
    assert torch.equal(after, START + vector)
    assert done.update_norm == pytest.approx(float(vector.norm()), rel=1e-6)
    # A difference of two equal squares: what is left of it is the rounding of fp32 norms.
    assert done.metrics["update.drift"] < 1e-3 * done.update_norm


def test_clients_that_did_not_move_leave_the_state_to_the_bit() -> None:
    after, done = step(
        [reply_of(client, torch.zeros(SIZE)) for client in range(3)], some_shares(3, 1)
    )
    assert torch.equal(after, START)
    assert done.metrics["update.drift"] == done.update_norm == 0.0


@pytest.mark.parametrize("lost", [set(), {0}, {1, 4}])
def test_mean_norm_and_drift_match_a_dense_computation(lost: set[int]) -> None:
    updates = [make_reply(c, scale=0.01 * (c + 1), is_lost=c in lost) for c in range(6)]
    shares = some_shares(6, 2)
    after, done = step(updates, shares, optimiser=sgd(0.5))
    mean, norm, drift = dense(updates, shares)
    assert torch.allclose(after.double(), START.double() + 0.5 * mean, rtol=0, atol=3e-7)
    assert done.update_norm == pytest.approx(norm, rel=1e-6)
    assert done.metrics["update.drift"] == pytest.approx(drift, rel=1e-5)


def test_leaving_a_client_out_is_as_if_it_had_not_been_sampled() -> None:
    updates = [make_reply(client) for client in range(4)]
    shares = {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4}
    with_lost = [*updates[:3], make_reply(3, is_lost=True)]
    without, _ = step(updates[:3], {0: 1 / 6, 1: 2 / 6, 2: 3 / 6})
    after, done = step(with_lost, shares)
    assert torch.allclose(after, without, rtol=0, atol=2e-7)
    assert [r.client for r in done.clients] == [0, 1, 2, 3]
    assert [r.failure for r in done.clients] == [None, None, None, "its loss is nan"]


def test_too_few_usable_clients_are_named_and_change_nothing() -> None:
    updates = [make_reply(0), make_reply(1, is_lost=True), make_reply(2)]
    state = GlobalState(START.clone())
    with pytest.raises(UserError) as caught:
        play(make_server(min_clients=3), state, {0: 0.3, 1: 0.3, 2: 0.4}, updates)
    assert str(caught.value) == (
        "min_clients=3 clients must send a usable update, got 2 of 3 in round 5 "
        "(client 1: its loss is nan); lower learning_rate, set max_grad_norm, or lower min_clients."
    )
    assert torch.equal(state.vector, START)


def test_a_step_after_a_failed_one_does_not_see_its_updates() -> None:
    server, state = make_server(min_clients=2), GlobalState(START)
    with pytest.raises(UserError):
        play(server, state, {0: 0.5, 3: 0.5}, [make_reply(0), make_reply(3, is_lost=True)])
    updates, shares = [make_reply(1), make_reply(2)], {1: 0.5, 2: 0.5}
    assert torch.equal(play(server, state, shares, updates)[0].vector, step(updates, shares)[0])


def test_a_step_returns_the_next_state_and_writes_to_nothing_of_this_one() -> None:
    server = make_server(optimiser=sgd(0.5, momentum=0.9))
    state = GlobalState(START.clone(), {"momentum": torch.ones(SIZE)}, round=4, total_bytes=7)
    after, done = play(server, state, {0: 1.0}, [make_reply(0)])
    assert torch.equal(state.vector, START)
    assert torch.equal(state.optimiser["momentum"], torch.ones(SIZE))
    assert not torch.equal(after.optimiser["momentum"], torch.ones(SIZE))
    assert (after.round, after.total_bytes) == (5, 7 + 8 * SIZE)
    assert [report.client for report in done.clients] == [0]


@pytest.mark.parametrize("value", [math.nan, math.inf, 2 * LIMIT])
def test_an_update_that_no_sum_can_hold_leaves_its_client_out(value: float) -> None:
    vector = torch.zeros(SIZE)
    vector[7] = value
    after, done = step([make_reply(0), reply_of(1, vector)], {0: 0.5, 1: 0.5})
    reason = f"its update is not finite or has a coordinate beyond {LIMIT:g}"
    assert [report.failure for report in done.clients] == [None, reason]
    assert torch.equal(after, step([make_reply(0)], {0: 1.0})[0])


def test_the_norm_of_an_update_is_reported_as_it_arrived() -> None:
    replies = [make_reply(client) for client in range(3)]
    norms = [float(vector_of(reply).norm()) for reply in replies]
    _, done = step(replies, some_shares(3, 1))
    assert [report.update_norm for report in done.clients] == pytest.approx(norms)


# What clients remember


def test_what_clients_remember_is_kept_for_those_whose_update_was_used() -> None:
    def remembering(client: int, value: float, *, is_lost: bool = False) -> Reply:
        reply = make_reply(client, is_lost=is_lost)
        return replace(reply, memory={"upload.residual": torch.full((SIZE,), value)})

    server, shares = make_server(), {0: 0.5, 1: 0.25, 2: 0.25}
    state = GlobalState(START)
    for replies in (
        [remembering(0, 1.0), remembering(1, -2.0), make_reply(2)],
        [remembering(0, 3.0), remembering(1, 4.0, is_lost=True), remembering(2, 5.0)],
    ):
        state, _ = play(server, state, shares, replies)
    kept = {c: float(t["upload.residual"][0]) for c, t in state.memory.clients.items()}
    assert kept == {0: 3.0, 1: -2.0, 2: 5.0}


@pytest.mark.parametrize("size", [2, 3])
def test_all_workers_come_to_the_same_memories_to_the_bit(size: int) -> None:
    memories = {c: torch.randn(SIZE, generator=torch.Generator().manual_seed(c)) for c in range(4)}

    def work(exchange: Exchange) -> dict[str, Tensor]:
        replies = [
            replace(make_reply(c), memory={"upload.residual": memories[c]} if c != 2 else {})
            for c in range(4)
            if c % exchange.size == exchange.rank
        ]
        server, shares = make_server(exchange), some_shares(4, 1)
        state, _ = play(server, GlobalState(START), shares, replies)
        return state.memory.to_tensors()

    for memory in on_workers(size, work):
        assert sorted(memory) == [f"upload.residual.{client}" for client in (0, 1, 3)]
        for client in (0, 1, 3):
            assert torch.equal(memory[f"upload.residual.{client}"], memories[client])


def test_a_state_or_an_adapter_that_keeps_every_value_is_seen() -> None:
    layout = Layout(("q.lora_A.x", "q.lora_B.x", "head"), ((1, 4), (6, 1), (SIZE - 10,)))
    of_head = torch.zeros(SIZE)
    of_head[10:] = 1.0
    of_one_value = torch.zeros(SIZE)
    of_one_value[3] = 1e-6
    for vector, expected in (
        (torch.zeros(SIZE), "the global state"),
        (torch.full((SIZE,), 1e-30), "the global state"),  # below the unit of the sum
        (of_head, "the adapter"),
        (of_one_value, ""),
    ):
        assert step([reply_of(0, vector)], {0: 1.0}, layout=layout)[1].unmoved == expected
    assert step([reply_of(0, of_head)], {0: 1.0})[1].unmoved == ""
    assert step([], {})[1].unmoved == "", "no client was drawn"
