"""Parts of the pairs: trained in turns, or kept by each client; against loops in fp64.

The model is y = head (B A x): A is 1 x 3, B is 2 x 1, and the head 1 x 2, so that no two of their
shapes can be taken for each other.
"""

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scaling_fl.core.exchange import SingleExchange
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.client import Clients, Tier
from scaling_fl.federation.evaluator import Evaluator
from scaling_fl.federation.link import Link
from scaling_fl.federation.personal import PERSONAL
from scaling_fl.federation.server import Server
from scaling_fl.federation.work import LocalWork
from scaling_fl.learning.task import Batch, BatchLoss, of_test
from scaling_fl.learning.training.local import LocalTrainer
from scaling_fl.methods.merging.means import mean
from scaling_fl.methods.pairs import coordinates_of
from scaling_fl.methods.server_optimisers import sgd
from tests.points import Points, Regression

ROWS = [([1, 0, 2], 1), ([0, 1, 1], -2), ([2, 1, 0], 1), ([1, 3, 0], 2), ([1, 1, 1], 3)]
PARTITIONS = [np.array([0, 1]), np.array([2, 3, 4])]
SHARES = {0: 0.4, 1: 0.6}
RATE, DECAY, MOMENTUM, SERVER_MOMENTUM = 0.05, 0.1, 0.9, 0.5
Values = Mapping[str, Tensor]


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lora_A = nn.ModuleDict({"default": nn.Linear(3, 1, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(1, 2, bias=False)})


class Adapted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = Layer(), nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            self.layer.lora_A["default"].weight.copy_(torch.tensor([[0.5, -1.0, 0.25]]))
            self.layer.lora_B["default"].weight.zero_()
            self.head.weight.copy_(torch.tensor([[1.0, -0.5]]))

    def forward(self, x: Tensor) -> Tensor:
        changed = self.layer.lora_B["default"](self.layer.lora_A["default"](x))
        return self.head(changed).squeeze(-1)  # type: ignore[no-any-return]


def loss_of(model: nn.Module, batch: Batch) -> BatchLoss:
    errors = model(batch.tensors["x"]) - batch.tensors["y"]
    return BatchLoss(errors.square().mean(), len(batch), {})


def values_of(trainer: LocalTrainer, vector: Tensor) -> dict[str, Tensor]:
    a, b, rest = (view.double() for view in trainer.layout.views(vector).values())
    return {"a": a, "b": b, "rest": rest}


def trained(start: Values, client: int, parts: tuple[str, ...]) -> dict[str, Tensor]:
    """Train by hand: two steps on all examples, with momentum and weight decay."""
    rows = [ROWS[index] for index in PARTITIONS[client]]
    x = torch.tensor([x for x, _ in rows], dtype=torch.float64)
    y = torch.tensor([y for _, y in rows], dtype=torch.float64)
    now = {name: value.clone() for name, value in start.items()}
    speed = {name: torch.zeros_like(value) for name, value in start.items()}
    for _ in range(2):
        leaves = {name: value.clone().requires_grad_() for name, value in now.items()}
        found = (x @ (leaves["rest"] @ leaves["b"] @ leaves["a"]).T).squeeze(-1)
        slopes = torch.autograd.grad((found - y).square().mean(), list(leaves.values()))
        for name, slope in zip(leaves, slopes, strict=True):
            if name in parts:
                speed[name] = MOMENTUM * speed[name] + slope + DECAY * now[name]
                now[name] = now[name] - RATE * speed[name]
    return now


def make_trainer() -> LocalTrainer:
    options = {"optimiser": "sgd", "momentum": MOMENTUM, "weight_decay": DECAY}
    return LocalTrainer(Adapted(), loss_of, **options)


def make_federation(trainer: LocalTrainer, link: Link, momentum: float) -> tuple[Clients, Server]:
    work = LocalWork(batch_size=8, num_epochs=2, num_steps=None)
    clients = Clients(
        trainer,
        Points(ROWS),
        PARTITIONS,
        tiers=[Tier(work=work, link=link)],
        tier_of=[0, 0],
        seed=0,
    )
    server = Server(
        SingleExchange(1),
        mean(),
        sgd(1.0, momentum=momentum),
        trainer.vector,
        links=[link],
        min_clients=1,
    )
    return clients, server


def play(clients: Clients, server: Server, state: GlobalState, cohort: list[int]) -> GlobalState:
    downloads = server.downloads(state)
    replies = clients.train_each(cohort, downloads, state, learning_rate=RATE, clip=math.inf)
    total = sum(SHARES[client] for client in cohort)
    shares = {client: SHARES[client] / total for client in cohort}
    after, step = server.step(state, downloads, shares, replies)
    (link,) = (tier.link for tier in clients.tiers)
    for report in step.clients:
        sizes = (report.download_bytes, report.upload_bytes)
        assert sizes == link.num_bytes(state.round + 1)
    return after


@pytest.mark.parametrize("momentum", [0.0, SERVER_MOMENTUM])
def test_in_turns_each_round_is_exact_and_the_other_part_rests(momentum: float) -> None:
    trainer = make_trainer()
    turns = [coordinates_of(parts, trainer.layout) for parts in (("b", "rest"), ("a", "rest"))]
    clients, server = make_federation(trainer, Link(trainer.layout.size, turns=turns), momentum)
    state = GlobalState(trainer.vector.clone(), server_state(trainer, momentum))
    expected = values_of(trainer, state.vector)
    speed = {name: torch.zeros_like(value) for name, value in expected.items()}
    for number in range(1, 5):
        before, part, other = state.vector, *(("b", "a") if number % 2 else ("a", "b"))
        state = play(clients, server, state, [0, 1])
        of_clients = {c: trained(expected, c, (part, "rest")) for c in SHARES}
        product = sum(SHARES[c] * now["b"] @ now["a"] for c, now in of_clients.items())
        for name in (part, "rest"):
            update = sum(SHARES[c] * now[name] for c, now in of_clients.items()) - expected[name]
            speed[name] = momentum * speed[name] + update
            expected = {**expected, name: expected[name] + speed[name]}
        found = values_of(trainer, state.vector)
        for name, value in expected.items():
            assert torch.allclose(found[name], value, rtol=1e-5, atol=1e-6)
        rests = ~turns[(number - 1) % 2]
        assert torch.equal(state.vector[rests], before[rests])
        assert torch.equal(found[other], values_of(trainer, before)[other])
        if not momentum:  # the mean of the factor that moved is the mean of the products
            assert torch.allclose(found["b"] @ found["a"], product, rtol=1e-5, atol=1e-6)


def server_state(trainer: LocalTrainer, momentum: float) -> Mapping[str, Tensor]:
    return sgd(1.0, momentum=momentum).init(trainer.vector)


def test_a_turn_is_sent_and_nothing_else_while_downloads_are_whole() -> None:
    trainer = make_trainer()
    layout = trainer.layout
    turns = [coordinates_of(parts, layout) for parts in (("b", "rest"), ("a", "rest"))]
    link = Link(layout.size, turns=turns)
    header = 28
    assert layout.size == 3 + 2 + 2
    assert link.num_bytes(1) == (header + 4 * 7, header + 4 * (2 + 2))
    assert link.num_bytes(2) == (header + 4 * 7, header + 4 * (3 + 2))
    assert link.num_bytes(3) == link.num_bytes(1)


def test_with_a_shared_each_client_keeps_its_b_and_its_head() -> None:
    """Client 1 takes part in rounds 2 and 3 alone, and begins as client 0 did."""
    trainer = make_trainer()
    layout = trainer.layout
    link = Link(layout.size, personal=coordinates_of(("b", "rest"), layout))
    assert link.num_bytes(1) == (28 + 4 * 3, 28 + 4 * 3)
    clients, server = make_federation(trainer, link, SERVER_MOMENTUM)
    state = GlobalState(trainer.vector.clone(), server_state(trainer, SERVER_MOMENTUM))
    start = values_of(trainer, state.vector)
    a, speed = start["a"], torch.zeros_like(start["a"])
    own = {client: {"b": start["b"], "rest": start["rest"]} for client in SHARES}
    for cohort in ([0], [0, 1], [1]):
        state = play(clients, server, state, cohort)
        now = {c: trained({"a": a, **own[c]}, c, ("a", "b", "rest")) for c in cohort}
        total = sum(SHARES[c] for c in cohort)
        speed = SERVER_MOMENTUM * speed + sum(SHARES[c] / total * (now[c]["a"] - a) for c in cohort)
        a = a + speed
        own |= {c: {"b": now[c]["b"], "rest": now[c]["rest"]} for c in cohort}
        found = values_of(trainer, state.vector)
        assert torch.allclose(found["a"], a, rtol=1e-5, atol=1e-6)
        assert torch.equal(found["b"], start["b"])
        assert torch.equal(found["rest"], start["rest"])
        for client, memory in state.memory.clients.items():
            kept = torch.cat([own[client]["b"].flatten(), own[client]["rest"].flatten()])
            assert torch.allclose(memory[PERSONAL].double(), kept, rtol=1e-5, atol=1e-6)
    assert sorted(state.memory.clients) == [0, 1]


def test_each_test_example_is_answered_once_by_its_owner() -> None:
    """Client 1 keeps a head that is twice as large; example 3 is nobody's, client 2 has no own."""
    trainer = make_trainer()
    layout = trainer.layout
    personal, vector = coordinates_of(("rest",), layout), trainer.vector.clone()
    layout.views(vector)["layer.lora_B.default.weight"].fill_(1.0)
    kept = {1: {PERSONAL: 2 * vector[personal]}}
    owners = np.array([1, 0, 2, -1, 1])
    seen: list[int] = []

    class Answers(Regression):
        def count(self, model: nn.Module, batch: Batch) -> Tensor:
            seen.extend(batch.indices.tolist())
            return super().count(model, batch)

    evaluate = Evaluator(
        trainer,
        [of_test(Answers(), Points(ROWS))],
        batch_size=2,
        detailed=True,
        owners=owners,
        personal=personal,
    )
    found = evaluate(vector, SingleExchange(1), kept)
    assert sorted(seen) == [0, 1, 2, 3, 4]
    a = torch.tensor([0.5, -1.0, 0.25])
    # B is ones and the head (1, -0.5), so a plain answer is 0.5 A x; client 1's is twice that.
    answers = [
        (1.0 if owner == 1 else 0.5) * float(a @ torch.tensor(x).float())
        for (x, _), owner in zip(ROWS, owners, strict=True)
    ]
    errors = [(answer - y) ** 2 for answer, (_, y) in zip(answers, ROWS, strict=True)]
    assert found["validation.loss"] == pytest.approx(sum(errors) / 5)
    assert found["validation.points"] == 5
