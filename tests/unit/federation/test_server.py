"""The server's laws: placement, order and left-out clients change nothing that they must not."""

import math
import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scaling_fl.core.errors import UserError
from scaling_fl.core.exchange import Exchange, SingleExchange
from scaling_fl.core.records import ClientReport
from scaling_fl.core.state import GlobalState
from scaling_fl.core.vector import Layout
from scaling_fl.federation.link import Direction, Link, Update
from scaling_fl.federation.server import Server, Step
from scaling_fl.methods.server_optimisers import sgd
from scaling_fl.methods.wire.codecs import CODECS
from scaling_fl.methods.wire.holding import RankPart
from tests.unit.federation.worker_threads import on_workers

SIZE = 300
START = torch.randn(SIZE, generator=torch.Generator().manual_seed(1))
Sent = tuple[Update, ClientReport]


def make_update(
    client: int, *, scale: float = 0.01, failure: str | None = None, num_examples: int = 10
) -> Sent:
    vector = torch.randn(SIZE, generator=torch.Generator().manual_seed(100 + client)) * scale
    if failure:
        vector[3] = math.nan
    report = report_of(client, vector, failure=failure, num_examples=num_examples)
    return Update(vector), report


def report_of(
    client: int, vector: Tensor, *, failure: str | None = None, num_examples: int = 10
) -> ClientReport:
    return ClientReport(
        round=5,
        client=client,
        num_examples=num_examples,
        metrics={"loss": 0.5, "accuracy": 0.5},
        update_norm=float(torch.linalg.vector_norm(vector)),
        download_bytes=4 * SIZE,
        upload_bytes=4 * SIZE,
        seconds=1.0,
        failure=failure,
    )


def step(
    updates: list[Sent],
    shares: dict[int, float],
    exchange: Exchange | None = None,
    *,
    min_clients: int = 1,
    learning_rate: float = 1.0,
    by_sender: bool = False,
) -> tuple[Tensor, Step]:
    """Do one server step from ``START`` and return the new global vector."""
    state = GlobalState(START.clone())
    optimiser = sgd(learning_rate)
    server = Server(
        exchange or SingleExchange(1),
        optimiser,
        torch.empty(SIZE),
        min_clients=min_clients,
        by_sender=by_sender,
    )
    done = server.step(state, shares, iter(updates))
    return state.vector, done


def dense(updates: list[Sent], shares: dict[int, float]) -> tuple[Tensor, float, float]:
    """Compute the mean of the usable updates, its norm and the drift, all at once in fp64."""
    usable = [(u.vector.double(), shares[r.client]) for u, r in updates if r.failure is None]
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
    updates = [
        make_update(c, failure="its loss is nan" if c in failed else None) for c in range(clients)
    ]
    shares = some_shares(clients, seed)
    alone, step_alone = step(updates, shares)

    def work(exchange: Exchange) -> tuple[Tensor, Step]:
        mine = [u for u, worker in zip(updates, placement, strict=True) if worker == exchange.rank]
        return step(mine, shares, exchange)

    for vector, done in on_workers(4, work):
        assert torch.equal(vector, alone)
        assert done.clients == step_alone.clients
        assert (done.update_norm, done.drift) == (step_alone.update_norm, step_alone.drift)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_clients_changes_nothing(seed: int) -> None:
    updates = [make_update(client) for client in range(7)]
    shares = some_shares(7, seed)
    first, step_first = step(updates, shares)
    random.Random(seed).shuffle(updates)
    second, step_second = step(updates, shares)
    assert torch.equal(first, second)
    assert step_first.clients == step_second.clients
    assert (step_first.update_norm, step_first.drift) == (
        step_second.update_norm,
        step_second.drift,
    )


@settings(max_examples=15)
@given(
    placement=st.lists(st.integers(0, 2), min_size=1, max_size=7),
    seed=st.integers(0, 99),
    lost=st.booleans(),
)
def test_any_split_and_order_is_one_worker_when_divided_by_senders(
    placement: list[int], seed: int, lost: bool
) -> None:
    link, clients = Link(Direction(), Direction(density=0.3)), len(placement)
    updates = []
    for client in range(clients):
        failure = "its loss is nan" if lost and 0 < client == clients - 1 else None
        update, report = make_update(client, failure=failure)
        start = link.download(START, 1)
        updates.append((link.upload_update(update.vector, start, 1), report))
    shares = some_shares(clients, seed)
    alone, step_alone = step(updates, shares, by_sender=True)
    shuffled = random.Random(seed).sample(updates, clients)
    assert torch.equal(step(shuffled, shares, by_sender=True)[0], alone)
    usable = [update for update, report in updates if report.failure is None]
    sent = torch.cat([update.sent for update in usable if update.sent is not None]).unique()
    untouched = torch.ones(SIZE, dtype=torch.bool).index_fill(0, sent, False)
    assert torch.equal(alone[untouched], START[untouched])

    def work(exchange: Exchange) -> tuple[Tensor, Step]:
        mine = [u for u, worker in zip(updates, placement, strict=True) if worker == exchange.rank]
        return step(mine, shares, exchange, by_sender=True)

    for vector, done in on_workers(3, work):
        assert torch.equal(vector, alone)
        assert done == replace(step_alone, exchange_seconds=done.exchange_seconds)


LORA = Layout(("x.lora_A.default.weight", "x.lora_B.default.weight"), ((4, 50), (25, 4)))


@pytest.mark.parametrize("by_sender", [False, True])
@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("codec", sorted(CODECS))
def test_equal_clients_are_a_fixed_point_of_what_arrives(
    codec: str, density: float, by_sender: bool
) -> None:
    """Of their tier's, that is: what a codec and a density do to an update is done to it once."""
    for holding in (None, RankPart(LORA, 2)):
        link = Link(Direction(), Direction(codec=codec, density=density), holding=holding)
        start, given = link.download(START, 1), []
        for client in range(5):
            update, report = make_update(0)
            given.append(
                (
                    link.upload_update(update.vector, start, 1),
                    replace(report, client=client),
                )
            )
        arrived = given[0][0].vector
        after, _ = step(given, some_shares(5, 3), by_sender=by_sender)
        assert torch.equal(after, START + arrived)


def test_equal_clients_of_unequal_tiers_are_a_fixed_point_only_of_the_senders_mean() -> None:
    """Divided by all, what only the larger tiers hold shrinks to their share of the clients."""
    ranks, shares = (1, 2, 4), {0: 0.25, 1: 0.25, 2: 0.5}
    given = []
    for client, rank in enumerate(ranks):
        link = Link(holding=RankPart(LORA, rank))
        update, report = make_update(0)
        sent = link.upload_update(update.vector, link.download(START, 1), 1)
        given.append((sent, replace(report, client=client)))
    vector = make_update(0)[0].vector
    after, _ = step(given, shares, by_sender=True)
    assert torch.equal(after, START + vector)
    divided, _ = step(given, shares)
    held = sum(share * (given[c][0].vector != 0) for c, share in shares.items())
    assert sorted(set(held.tolist())) == [0.5, 0.75, 1.0]
    assert torch.allclose(divided, START + vector * held, rtol=0, atol=1e-7)


@pytest.mark.parametrize("clients", [1, 2, 3, 7, 64])
def test_equal_clients_are_a_fixed_point(clients: int) -> None:
    """All sending the same is one sending it, to the bit, whatever their shares."""
    vector = make_update(0)[0].vector
    updates = [(Update(vector), report_of(client, vector)) for client in range(clients)]
    after, done = step(updates, some_shares(clients, 3))
    assert torch.equal(after, START + vector)
    assert done.update_norm == pytest.approx(float(vector.norm()), rel=1e-6)
    # A difference of two equal squares: what is left of it is the rounding of fp32 norms.
    assert done.drift < 1e-3 * done.update_norm


def test_clients_that_did_not_move_leave_the_state_to_the_bit() -> None:
    zero = torch.zeros(SIZE)
    after, done = step(
        [(Update(zero), report_of(client, zero)) for client in range(3)], some_shares(3, 1)
    )
    assert torch.equal(after, START)
    assert done.drift == done.update_norm == 0.0


@pytest.mark.parametrize("lost", [set(), {0}, {1, 4}])
def test_mean_norm_and_drift_match_a_dense_computation(lost: set[int]) -> None:
    updates = [
        make_update(c, scale=0.01 * (c + 1), failure="its loss is nan" if c in lost else None)
        for c in range(6)
    ]
    shares = some_shares(6, 2)
    after, done = step(updates, shares, learning_rate=0.5)
    mean, norm, drift = dense(updates, shares)
    assert torch.allclose(after.double(), START.double() + 0.5 * mean, rtol=0, atol=3e-7)
    assert done.update_norm == pytest.approx(norm, rel=1e-6)
    assert done.drift == pytest.approx(drift, rel=1e-5)


def test_leaving_a_client_out_is_as_if_it_had_not_been_sampled() -> None:
    updates = [make_update(client) for client in range(4)]
    shares = {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4}
    with_lost = [*updates[:3], make_update(3, failure="its loss is inf")]
    without, _ = step(updates[:3], {0: 1 / 6, 1: 2 / 6, 2: 3 / 6})
    after, done = step(with_lost, shares)
    assert torch.allclose(after, without, rtol=0, atol=2e-7)
    assert [r.client for r in done.clients] == [0, 1, 2, 3]
    assert [r.failure for r in done.clients] == [None, None, None, "its loss is inf"]


def test_too_few_usable_clients_are_named_and_change_nothing() -> None:
    updates = [make_update(0), make_update(1, failure="its loss is nan"), make_update(2)]
    state = GlobalState(START.clone())
    server = Server(SingleExchange(1), sgd(1.0), torch.empty(SIZE), min_clients=3)
    with pytest.raises(UserError) as caught:
        server.step(state, {0: 0.3, 1: 0.3, 2: 0.4}, iter(updates))
    assert str(caught.value) == (
        "min_clients=3 clients must send a usable update, got 2 of 3 in round 5 "
        "(client 1: its loss is nan); lower learning_rate, set max_grad_norm, or lower min_clients."
    )
    assert torch.equal(state.vector, START)


def test_a_step_after_a_failed_one_does_not_see_its_updates() -> None:
    server = Server(SingleExchange(1), sgd(1.0), torch.empty(SIZE), min_clients=2)
    state = GlobalState(START.clone())
    lost = make_update(3, failure="its loss is nan")
    with pytest.raises(UserError):
        server.step(state, {0: 0.5, 3: 0.5}, [make_update(0), lost])
    updates = [make_update(1), make_update(2)]
    server.step(state, {1: 0.5, 2: 0.5}, updates)
    assert torch.equal(state.vector, step(updates, {1: 0.5, 2: 0.5})[0])
