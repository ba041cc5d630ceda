"""What a round sends down, and what it leaves for the next: masks and residuals."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from scaling_fl.core.exchange import SingleExchange
from scaling_fl.core.state import GlobalState
from scaling_fl.core.vector import Layout
from scaling_fl.federation.arrivals import Reply
from scaling_fl.federation.client import Clients
from scaling_fl.federation.client_end import RESIDUAL
from scaling_fl.federation.downloads import MASK, Downloads
from scaling_fl.federation.link import Link
from scaling_fl.federation.server import Server
from scaling_fl.federation.server_end import ServerEnd
from scaling_fl.learning.training.local import LocalTrainer
from scaling_fl.methods.merging.means import mean
from scaling_fl.methods.server_optimisers import sgd
from scaling_fl.methods.wire.direction import PLAIN, Direction
from scaling_fl.methods.wire.holding import RankHolding
from tests.unit.federation.federations import even_partitions, make_clients, make_trainer

SIZE = 400
LAYOUT = Layout(("x.lora_A.default.weight", "x.lora_B.default.weight"), ((4, 60), (40, 4)))


def vector(seed: int) -> Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(seed)) * 0.1


def test_every_tier_is_sent_the_state_once() -> None:
    links = [
        Link(SIZE),
        Link(SIZE, Direction(codec="nf4")),
        Link(SIZE, holding=RankHolding(LAYOUT, 1, largest=True)),
    ]
    downloads = Downloads(links, GlobalState(vector(1)), 1)
    for tier, link in enumerate(links):
        sent, received = downloads.sent(tier), downloads.received(tier)
        assert downloads.sent(tier) is sent
        assert downloads.received(tier) is received
        expected = ServerEnd(link).download(vector(1), 1)
        assert received.num_bytes == sent.num_bytes == expected.num_bytes
    assert torch.equal(downloads.received(0).vector, vector(1))
    assert int(downloads.received(2).vector.count_nonzero()) == 100  # one component of four


def make_worker(link: Link, trainer: LocalTrainer) -> tuple[Clients, Server]:
    clients = make_clients(trainer, even_partitions(4), links=[link])
    server = Server(
        SingleExchange(1), mean(), sgd(1.0), trainer.vector, links=[link], min_clients=1
    )
    return clients, server


def play(
    clients: Clients,
    server: Server,
    state: GlobalState,
    cohort: list[int],
    rates: dict[int, float] | None = None,
) -> GlobalState:
    """Play a round of the clients of a cohort; ``rates`` are other learning rates than 0.1."""
    downloads = server.downloads(state)

    def replies() -> Iterator[Reply]:
        for client in cohort:
            yield clients.train(
                downloads.received(0),
                client,
                round_number=state.round + 1,
                learning_rate=(rates or {}).get(client, 0.1),
                memory=state.memory.clients.get(client),
            )

    shares = dict.fromkeys(cohort, 1 / len(cohort))
    return server.step(state, downloads, shares, replies())[0]


@pytest.fixture
def trainer() -> LocalTrainer:
    return make_trainer(adapter="lora", optimiser="sgd")


def feedback(trainer: LocalTrainer) -> Link:
    up = Direction(codec="nf4", density=0.25)
    return Link(trainer.layout.size, PLAIN, up, error_feedback=True)


def residual(state: GlobalState, client: int) -> Tensor:
    return state.memory.clients[client][RESIDUAL]


def test_what_was_held_back_is_sent_the_next_time(trainer: LocalTrainer) -> None:
    """All that was trained has arrived after some rounds, but for the residual that is left."""
    clients, server = make_worker(feedback(trainer), trainer)
    plain, plain_server = make_worker(Link(trainer.layout.size), trainer)
    state = GlobalState(trainer.vector.clone())
    trained = torch.zeros(trainer.layout.size, dtype=torch.float64)
    start = state.vector
    for _ in range(3):
        forgetful = GlobalState(state.vector, round=state.round)
        dense = play(plain, plain_server, forgetful, [0])
        trained += dense.vector.double() - state.vector.double()
        state = play(clients, server, state, [0])
    arrived = state.vector.double() - start.double()
    assert torch.allclose(arrived + residual(state, 0), trained, rtol=0, atol=1e-6)
    assert float(residual(state, 0).abs().max()) > 0


def test_a_client_that_was_left_out_keeps_what_it_had_held_back(trainer: LocalTrainer) -> None:
    clients, server = make_worker(feedback(trainer), trainer)
    first = play(clients, server, GlobalState(trainer.vector.clone()), [0, 1])
    second = play(clients, server, first, [0, 1, 2], {1: 1e38})
    assert not torch.equal(residual(second, 0), residual(first, 0))
    assert torch.equal(residual(second, 1), residual(first, 1))
    assert sorted(second.memory.clients) == [0, 1, 2]


def test_the_mask_is_that_of_the_state_after_the_first_round(trainer: LocalTrainer) -> None:
    size = trainer.layout.size
    link = Link(size, Direction(density=0.5), server_freeze=True)
    clients, server = make_worker(link, trainer)
    state = GlobalState(trainer.vector.clone())
    assert server.downloads(state).received(0).vector is state.vector
    state = play(clients, server, state, [0, 1])
    frozen, mask = state.vector.clone(), torch.zeros(size)
    mask[frozen.abs().topk(size // 2).indices] = 1.0
    for _ in (2, 3):
        assert torch.equal(server.downloads(state).received(0).vector, state.vector * mask)
        state = play(clients, server, state, [0])
        assert torch.equal(state.memory.server[MASK], frozen)


def test_without_feedback_and_frozen_masks_nothing_is_remembered(trainer: LocalTrainer) -> None:
    link = Link(trainer.layout.size, Direction(density=0.5), Direction(codec="int8"))
    clients, server = make_worker(link, trainer)
    state = play(clients, server, GlobalState(trainer.vector.clone()), [1])
    assert state.memory.to_tensors() == {}
