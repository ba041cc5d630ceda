"""What a round leaves for a later one: the mask and the residuals, the same on all workers."""

from typing import Any

import numpy as np
import pytest
import torch

from scaling_fl.core.exchange import Exchange, SingleExchange
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.client import Clients
from scaling_fl.federation.link import Direction, Link
from scaling_fl.federation.memory import Turns
from scaling_fl.learning.training.local import LocalTrainer
from scaling_fl.methods.wire.holding import RankPart
from tests.unit.federation.federations import even_parts, make_clients, make_trainer
from tests.unit.federation.worker_threads import on_workers

FEEDBACK = Link(Direction(), Direction(codec="nf4", density=0.25), error_feedback=True)
FROZEN = Link(Direction(density=0.5), server_freeze=True)


def setup(*links: Link, **options: Any) -> tuple[LocalTrainer, Clients, GlobalState]:
    trainer = make_trainer(adapter="lora", optimiser="sgd")
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # it draws from the generator that threads share
    clients = make_clients(trainer, even_parts(4), links=links, **options)
    state = GlobalState(torch.randn(trainer.layout.size, generator=_generator(1)) * 0.1)
    return trainer, clients, state


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def train(turns: Turns, client: int, learning_rate: float = 0.1) -> torch.Tensor:
    update, _ = turns.train(client, learning_rate=learning_rate)
    return update.vector.clone()


def residual(state: GlobalState, client: int) -> torch.Tensor:
    return state.memory[f"upload.residual.{client}"]


def test_a_round_leaves_nothing_before_it_is_handed_on() -> None:
    _, clients, state = setup(FEEDBACK)
    before = state.vector.clone()
    turns = Turns(clients, state, 1)
    for client in range(4):
        train(turns, client)
    assert state.memory == {}
    assert torch.equal(state.vector, before)
    turns.hand_on([0, 1, 2, 3], SingleExchange(1))
    assert sorted(state.memory) == [f"upload.residual.{client}" for client in range(4)]
    again = Turns(clients, GlobalState(before), 1)
    assert torch.equal(train(again, 2), train(Turns(clients, GlobalState(before), 1), 2))


def test_what_was_held_back_is_sent_the_next_time() -> None:
    _, clients, state = setup(FEEDBACK)
    link = clients.tiers[0].link
    kept: torch.Tensor | None = None
    for number in (1, 2, 3):
        turns = Turns(clients, state, number)
        arrived = train(turns, 0)
        # The same training, whose update is sent with what is known to have been held back.
        plain = make_clients(clients._trainer, even_parts(4))
        dense, _ = plain.train(
            plain.download(state.vector, number), 0, round_number=number, learning_rate=0.1
        )
        start = clients.download(state.vector, number)
        expected = link.upload_update(dense.vector.clone(), start, number, kept)
        assert torch.equal(arrived, expected.vector)
        without = link.upload_update(dense.vector.clone(), start, number)
        assert (kept is None) == torch.equal(arrived, without.vector)
        turns.hand_on([0], SingleExchange(1))
        kept = expected.residual
        assert kept is not None
        assert torch.equal(residual(state, 0), kept)


def test_a_client_that_was_left_out_keeps_what_it_had_held_back() -> None:
    _, clients, state = setup(FEEDBACK)
    first = Turns(clients, state, 1)
    for client in (0, 1):
        train(first, client)
    first.hand_on([0, 1], SingleExchange(1))
    before = {client: residual(state, client).clone() for client in (0, 1)}
    second = Turns(clients, state, 2)
    for client in (0, 1, 2):
        train(second, client, learning_rate=1e38 if client == 1 else 0.1)
    second.hand_on([0, 2], SingleExchange(1))
    assert not torch.equal(residual(state, 0), before[0])
    assert torch.equal(residual(state, 1), before[1])
    assert sorted(state.memory) == [f"upload.residual.{client}" for client in range(3)]


@pytest.mark.parametrize("size", [2, 3])
def test_all_workers_come_to_the_residuals_of_one_to_the_bit(size: int) -> None:
    def work(exchange: Exchange) -> dict[str, torch.Tensor]:
        _, clients, state = made[exchange.rank]
        for number in (1, 2):
            turns = Turns(clients, state, number)
            for client in (0, 1, 3):
                if client % exchange.size == exchange.rank:
                    train(turns, client)
            turns.hand_on([0, 1, 3], exchange)
        return state.memory

    made = [setup(FEEDBACK) for _ in range(size + 1)]
    alone = work_alone(made.pop())
    for memory in on_workers(size, work):
        assert memory.keys() == alone.keys()
        for name, value in memory.items():
            assert torch.equal(value.view(torch.int32), alone[name].view(torch.int32))
            assert value.lt(0).any()  # the sign survives its way as an integer


def work_alone(made: tuple[LocalTrainer, Clients, GlobalState]) -> dict[str, torch.Tensor]:
    _, clients, state = made
    for number in (1, 2):
        turns = Turns(clients, state, number)
        for client in (0, 1, 3):
            train(turns, client)
        turns.hand_on([0, 1, 3], SingleExchange(1))
    return state.memory


def test_every_tier_is_sent_the_state_once() -> None:
    trainer, _, _ = setup(Link())
    links = (Link(), Link(Direction(codec="nf4")), Link(holding=RankPart(trainer.layout, 1)))
    _, clients, state = setup(*links)
    turns = Turns(clients, state, 1)
    starts = [turns.start(tier) for tier in range(3)]
    for client in range(4):
        train(turns, client)
    for tier, start in enumerate(starts):
        assert turns.start(tier) is start
        expected = links[tier].download(state.vector, 1)
        assert torch.equal(start.received, expected.received)
        assert start.num_bytes == expected.num_bytes


def test_the_mask_is_that_of_the_state_after_the_first_round() -> None:
    _, clients, state = setup(FROZEN)
    size = state.vector.numel()
    turns = Turns(clients, state, 1)
    assert turns.start(0).received is state.vector
    state.vector += 0.1 * torch.randn(size, generator=_generator(2))  # the server's step
    turns.hand_on([], SingleExchange(1))
    frozen = state.vector.clone()
    mask = torch.zeros(size)
    mask[frozen.abs().topk(size // 2).indices] = 1.0
    for number in (2, 3):
        state.vector += 0.1 * torch.randn(size, generator=_generator(number + 1))
        turns = Turns(clients, state, number)
        assert torch.equal(turns.start(0).received, state.vector * mask)
        turns.hand_on([0], SingleExchange(1))
        assert torch.equal(state.memory["download.mask"], frozen)


def test_without_feedback_and_frozen_masks_nothing_is_remembered() -> None:
    _, clients, state = setup(Link(Direction(density=0.5), Direction(codec="int8")))
    turns = Turns(clients, state, 1)
    train(turns, 1)
    turns.hand_on([1], SingleExchange(1))
    assert state.memory == {}


def test_a_client_is_sent_what_its_tier_is_sent() -> None:
    _, clients, state = setup(Link(), Link(Direction(density=0.1)))
    turns = Turns(clients, state, 1)
    down = []
    for client in range(4):
        _, report = turns.train(client, learning_rate=0.1)
        down.append(report.download_bytes)
    assert down == [turns.start(client % 2).num_bytes for client in range(4)]
    assert np.diff(down).all()
