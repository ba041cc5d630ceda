"""A client's turn depends on (seed, round, client) and the global vector, and on nothing else."""

from typing import Any

import numpy as np
import pytest
import torch

from scaling_fl.core.records import ClientReport
from scaling_fl.core.seeding import from_seed
from scaling_fl.federation.client import Clients
from scaling_fl.federation.groups import Groups
from scaling_fl.federation.link import Link
from scaling_fl.federation.work import LocalWork
from scaling_fl.learning.task import Batch, BatchLoss, Indices
from scaling_fl.learning.training.local import LocalTrainer
from scaling_fl.methods.privacy.mechanism import clip_, l2_norm
from scaling_fl.methods.sampling import fixed_groups, poisson_groups
from scaling_fl.methods.wire.direction import Direction
from scaling_fl.methods.wire.holding import RankHolding
from scaling_fl.methods.wire.payloads import payload_size
from tests.unit.federation.federations import (
    TASK,
    even_partitions,
    make_clients,
    make_trainer,
    receive,
    start_of,
    update_of,
)


class Watched:
    """Clients of which one sees the examples of each step."""

    def __init__(self, partitions: list[Indices], **options: Any) -> None:
        self._seen: list[list[int]] = []
        trainer = LocalTrainer(TASK.load_model(), self._loss, optimiser="sgd")
        self.clients = make_clients(trainer, partitions, **options)
        self._start = start_of(trainer)

    def _loss(self, model: torch.nn.Module, batch: Batch) -> BatchLoss:
        self._seen.append(batch.indices.tolist())
        return TASK.loss(model, batch)

    def orders(self, client: int, round_number: int) -> list[list[int]]:
        self._seen.clear()
        received = receive(self.clients, self._start, round_number)
        self.clients.train(received, client, round_number=round_number, learning_rate=1e-3)
        return list(self._seen)


def test_a_turn_reports_what_happened_in_it() -> None:
    trainer = make_trainer()
    clients = make_clients(trainer, even_partitions(4), num_epochs=2)
    start = start_of(trainer)
    seen: list[tuple[int, int, int, int]] = []
    reply = clients.train(
        receive(clients, start, 3),
        2,
        round_number=3,
        learning_rate=1e-3,
        progress=lambda *event: seen.append(event[:4]),
    )
    update, report = update_of(clients, reply, start), reply.report
    assert torch.equal(update, trainer.vector)  # the buffer of the trainer
    assert float(update.norm()) > 0
    assert (report.round, report.client, report.num_examples) == (3, 2, 12)
    assert (
        report.download_bytes
        == report.upload_bytes
        == payload_size(trainer.layout.size, None, "none")
    )
    assert report.failure is None
    assert 0.0 <= report.metrics["accuracy"] <= 1.0
    assert report.metrics["loss"] == pytest.approx(1.1, abs=0.3)  # log 3 at first
    assert all(event[:2] == (3, 2) and event[3] == 6 for event in seen)


@pytest.mark.parametrize(("epochs", "steps", "expected"), [(2, None, 6), (None, 5, 5)])
def test_the_work_is_counted_in_steps_before_it_is_done(
    epochs: int | None, steps: int | None, expected: int
) -> None:
    watched = Watched(even_partitions(4), num_epochs=epochs, num_steps=steps)
    assert watched.clients.total_steps(1) == expected
    assert len(watched.orders(1, 1)) == expected


def test_every_epoch_visits_each_example_once_and_a_partial_batch_is_kept() -> None:
    partitions = even_partitions(4)
    watched = Watched(partitions, batch_size=5, num_epochs=3)
    batches = watched.orders(1, 1)
    assert [len(batch) for batch in batches] == [5, 5, 2] * 3
    for epoch in range(3):
        visited = [index for batch in batches[3 * epoch : 3 * epoch + 3] for index in batch]
        assert sorted(visited) == partitions[1].tolist()


def test_steps_begin_a_new_epoch_when_one_is_used_up() -> None:
    partitions = even_partitions(4)
    watched = Watched(partitions, num_epochs=None, num_steps=7)
    batches = watched.orders(0, 1)
    assert sorted(i for batch in batches[:3] for i in batch) == partitions[0].tolist()
    assert sorted(i for batch in batches[3:6] for i in batch) == partitions[0].tolist()
    assert len(batches) == 7


def test_the_order_is_new_in_every_epoch_round_and_client_and_the_same_on_a_resume() -> None:
    whole = even_partitions(1)[0]
    watched = Watched([whole, whole], batch_size=48, num_epochs=2)
    drawn = [
        tuple(epoch)
        for client in (0, 1)
        for round_ in (1, 2)
        for epoch in watched.orders(client, round_)
    ]
    assert len(set(drawn)) == len(drawn) == 8
    again = Watched([whole, whole], batch_size=48, num_epochs=2)
    assert again.orders(1, 2) == watched.orders(1, 2)
    other = Watched([whole, whole], batch_size=48, num_epochs=2, seed=8)
    assert other.orders(1, 2) != watched.orders(1, 2)


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_nothing_of_a_client_reaches_the_next_one(optimiser: str) -> None:
    momentum = {"momentum": 0.9} if optimiser == "sgd" else {}
    trainer = make_trainer(optimiser=optimiser, weight_decay=0.01, **momentum)
    clients = make_clients(trainer, even_partitions(4))
    start = start_of(trainer)

    def turn(client: int) -> torch.Tensor:
        return turn_of(clients, client)

    def turn_of(clients: Clients, client: int) -> torch.Tensor:
        received = receive(clients, start, 1)
        reply = clients.train(received, client, round_number=1, learning_rate=1e-2)
        return update_of(clients, reply, start).clone()

    alone = turn(2)
    for other in (0, 3, 1):
        assert not torch.equal(turn(other), alone)
    torch.rand(5)  # randomness that something else draws
    assert torch.equal(turn(2), alone)
    fresh = make_trainer(optimiser=optimiser, weight_decay=0.01, **momentum)
    assert torch.equal(turn_of(make_clients(fresh, even_partitions(4)), 2), alone)


def test_dropout_is_drawn_from_seed_round_and_client() -> None:
    """With a single example there is no order, so all that differs is the dropout."""
    one = [np.array([5]), np.array([5])]
    updates = {}
    for seed, round_number, client in [(7, 1, 0), (8, 1, 0), (7, 2, 0), (7, 1, 1)]:
        trainer = make_trainer(optimiser="sgd")
        clients = make_clients(trainer, one, seed=seed)
        start = receive(clients, start_of(trainer), round_number)
        clients.train(start, client, round_number=round_number, learning_rate=0.1)
        updates[seed, round_number, client] = tuple(trainer.vector[:2000].tolist())
    assert len(set(updates.values())) == 4


def test_a_turn_can_be_abandoned_before_any_step() -> None:
    trainer = make_trainer()
    clients = make_clients(trainer, even_partitions(2))
    start = receive(clients, start_of(trainer), 1)
    asked: list[int] = []

    def check() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clients.train(start, 0, round_number=1, learning_rate=1e-3, check=check)
    assert len(asked) == 3


def test_work_without_epochs_or_steps_is_none() -> None:
    assert LocalWork(batch_size=4, num_epochs=None, num_steps=None).total_steps(10) == 0


# Coordinates that a client does not own


@pytest.mark.parametrize(
    "options",
    [
        {"optimiser": "sgd", "momentum": 0.9, "weight_decay": 0.1},
        {"optimiser": "adam", "weight_decay": 0.1},
        {"optimiser": "adamw", "weight_decay": 0.1},
        {"optimiser": "sgd", "prox_mu": 1.0, "max_grad_norm": 0.5},
        {"optimiser": "adamw", "prox_mu": 1.0},
    ],
    ids=lambda options: "-".join(f"{name}={value}" for name, value in options.items()),
)
@pytest.mark.parametrize("trainable", ["frozen", "first", "both"])
def test_what_a_client_may_not_change_never_changes(
    options: dict[str, Any], trainable: str
) -> None:
    trainer = make_trainer(adapter="dora", **options)
    link = Link(
        trainer.layout.size,
        Direction(density=1.0 if trainable == "first" else 0.5),
        client_freeze=trainable != "first",
        holding=None if trainable == "frozen" else RankHolding(trainer.layout, 2),
    )
    clients = make_clients(trainer, even_partitions(4), num_epochs=2, links=[link])
    vector = torch.randn(trainer.layout.size) * 0.1
    start = receive(clients, vector, 1)
    assert start.trainable is not None
    others = torch.ones(trainer.layout.size, dtype=torch.bool)
    others[start.trainable] = False
    assert others.any()
    seen: list[torch.Tensor] = []
    reply = clients.train(
        start,
        0,
        round_number=1,
        learning_rate=0.05,
        check=lambda: seen.append(trainer.vector.clone()),
    )
    assert len(seen) == 6
    for vector in seen:
        assert not vector[others].any()
    changed = (seen[-1] - start.vector)[start.trainable].count_nonzero()
    # Where A is zero, B has no gradient at first.
    assert changed > 0.5 * len(start.trainable)
    assert reply.payload.size == len(start.trainable)
    assert not update_of(clients, reply, vector)[others].any()


def test_being_free_to_change_everything_is_plain_training() -> None:
    updates = []
    for client_freeze in (False, True):
        trainer = make_trainer(adapter="lora")
        size, whole = trainer.layout.size, RankHolding(trainer.layout, 4)
        for links in ([Link(size, client_freeze=client_freeze)], [Link(size, holding=whole)]):
            clients = make_clients(trainer, even_partitions(4), links=links)
            state = torch.randn(trainer.layout.size, generator=torch.Generator().manual_seed(1))
            received = receive(clients, state, 1)
            reply = clients.train(received, 0, round_number=1, learning_rate=0.01)
            updates.append(update_of(clients, reply, state).clone())
    assert all(torch.equal(update, updates[0]) for update in updates)


# Tiers


def test_every_client_has_the_steps_and_the_link_of_its_tier() -> None:
    trainer = make_trainer(adapter="lora")
    size = trainer.layout.size
    whole, part = Link(size), Link(size, Direction(codec="fp16"), Direction(density=0.1))
    small = Link(size, holding=RankHolding(trainer.layout, 1, largest=True))
    links = [whole, part, small]
    clients = make_clients(
        trainer, even_partitions(5), links=links, num_epochs=1, tier_steps=[2, None, 5]
    )
    state = torch.randn(size)
    for client in range(5):
        tier = client % 3
        assert clients.tier_of[client] == tier
        steps: list[int] = []
        report = clients.train(
            receive(clients, state, 2, tier),
            client,
            round_number=2,
            learning_rate=1e-3,
            check=lambda steps=steps: steps.append(1),  # type: ignore[misc]
        ).report
        expected = [2, int(np.ceil(clients.num_examples(client) / 4)), 5][tier]
        assert len(steps) == clients.total_steps(client) == expected
        assert report.tier == tier
        assert (report.download_bytes, report.upload_bytes) == links[tier].num_bytes(2)


# Groups of a client


class Bound:
    """The bound of a private sum, which remembers what it was given and what it came to."""

    def __init__(self) -> None:
        self.before: list[torch.Tensor] = []
        self.after: list[torch.Tensor] = []

    def __call__(self, update: torch.Tensor, clip: float) -> bool:
        self.before.append(update.clone())
        within = clip_(update, l2_norm(update), clip) == 1.0
        self.after.append(update.clone())
        return within


NUM_GROUPS = 4
GROUPED = [np.arange(0, 1), np.arange(1, 3), np.arange(3, 7), np.arange(7, 15)]
"""Groups of 1, 2, 4 and 8 examples, so that a number of examples says which were drawn."""


def train_groups(
    *,
    per_round: int,
    clip: float = 0.05,
    round_number: int = 1,
    groups: list[np.ndarray] | None = None,
    dropout: bool = True,
    poisson: bool = False,
    **options: Any,
) -> tuple[torch.Tensor, int, Bound, ClientReport]:
    trainer = make_trainer(optimiser="sgd")
    if not dropout:
        without_dropout(trainer)
    groups, bound = groups or GROUPED, Bound()
    clients = make_clients(
        trainer,
        [np.concatenate(groups)],
        groups=Groups(
            examples=[groups],
            per_round=per_round,
            most=len(groups),
            sample=(poisson_groups if poisson else fixed_groups)(
                per_round, len(groups), from_seed(7)
            ),
            bound=bound,
        ),
        **options,
    )
    vector = start_of(trainer)
    reply = clients.train(
        receive(clients, vector, round_number),
        0,
        round_number=round_number,
        learning_rate=0.05,
        clip=clip,
    )
    return update_of(clients, reply, vector), reply.num_unclipped, bound, reply.report


def without_dropout(trainer: LocalTrainer) -> None:
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


@pytest.mark.parametrize("per_round", [1, 2, 4])
def test_a_grouped_update_is_the_sum_of_the_clipped_updates_of_its_groups(per_round: int) -> None:
    clip = 0.05
    update, num_unclipped, bound, _ = train_groups(per_round=per_round, clip=clip)
    assert len(bound.before) == per_round
    total = torch.zeros_like(update, dtype=torch.float64)
    for before, after in zip(bound.before, bound.after, strict=True):
        factor = min(1.0, clip / float(before.double().norm()))
        assert torch.allclose(after.double(), before.double() * factor, rtol=1e-5, atol=1e-12)
        total += after
    assert torch.equal(update, total.float())
    assert float(update.double().norm()) <= per_round * clip
    assert num_unclipped == sum(float(b.double().norm()) <= clip * (1 - 1e-6) for b in bound.before)


def test_the_groups_within_the_clip_are_counted() -> None:
    _, _, bound, _ = train_groups(per_round=4, clip=1e3)
    norms = sorted(float(before.double().norm()) for before in bound.before)
    for clip, expected in [(norms[0] / 2, 0), ((norms[1] + norms[2]) / 2, 2), (norms[3] * 2, 4)]:
        assert train_groups(per_round=4, clip=clip)[1] == expected


def test_a_group_trains_alike_whichever_others_are_drawn() -> None:
    _, _, everyone, _ = train_groups(per_round=4)
    _, _, some, _ = train_groups(per_round=2)
    for update in some.before:
        assert sum(torch.equal(update, other) for other in everyone.before) == 1


def test_one_group_moves_the_sum_by_no_more_than_its_clip() -> None:
    clip = 0.05
    update, _, _, report = train_groups(per_round=4, clip=clip)
    for group in range(NUM_GROUPS):
        absent = [g if i != group else g[:0] for i, g in enumerate(GROUPED)]
        other = [g if i != group else g + 20 for i, g in enumerate(GROUPED)]
        without, _, _, fewer = train_groups(per_round=4, clip=clip, groups=absent)
        replaced, _, _, _ = train_groups(per_round=4, clip=clip, groups=other)
        assert report.num_examples - fewer.num_examples == len(GROUPED[group])
        assert 0 < float((update.double() - without.double()).norm()) <= clip
        assert clip / 10 < float((update.double() - replaced.double()).norm()) <= 2 * clip


def test_groups_are_drawn_anew_in_every_round_and_alike_on_a_resume() -> None:
    drawn = [train_groups(per_round=2, round_number=r)[3].num_examples for r in range(1, 13)]
    for number in drawn:
        assert number.bit_count() == 2  # two different groups
    assert len(set(drawn)) > 2
    assert [train_groups(per_round=2, round_number=r)[3].num_examples for r in (5, 6)] == drawn[4:6]


def test_a_single_group_is_the_whole_client_up_to_its_clip() -> None:
    part, trainer = np.arange(12), make_trainer(optimiser="sgd")
    without_dropout(trainer)
    alone = make_clients(trainer, [part], batch_size=12)
    start = start_of(trainer)
    whole = alone.train(receive(alone, start, 1), 0, round_number=1, learning_rate=0.05)
    plain = update_of(alone, whole, start).clone()
    options: dict[str, Any] = {"groups": [part], "batch_size": 12, "dropout": False}
    update, num_unclipped, _, report = train_groups(per_round=1, clip=1e3, **options)
    assert torch.allclose(update, plain, rtol=1e-3, atol=1e-6)  # its batch is in another order
    assert (num_unclipped, report.num_examples) == (1, 12)
    clip = float(plain.norm()) / 3
    clipped, num_unclipped, _, _ = train_groups(per_round=1, clip=clip, **options)
    assert torch.allclose(clipped, plain / 3, rtol=1e-3, atol=1e-6)
    assert num_unclipped == 0


def test_groups_drawn_each_by_itself_may_be_none() -> None:
    sums = [train_groups(per_round=1, round_number=r, poisson=True) for r in range(1, 25)]
    counts = [len(bound.before) for _, _, bound, _ in sums]
    assert {0, 1, 2} <= set(counts)
    for update, _, bound, report in sums:
        assert (report.num_examples == 0) == (not bound.before)
        assert (float(update.norm()) == 0.0) == (not bound.before)


def test_a_group_that_diverges_is_left_out_alone() -> None:
    """Otherwise its data would decide about the updates of the others, too."""
    trainer = make_trainer(optimiser="sgd")
    bound = Bound()
    clients = make_clients(
        trainer,
        [np.arange(15)],
        groups=Groups(
            examples=[GROUPED],
            per_round=4,
            most=4,
            sample=fixed_groups(4, 4, from_seed(7)),
            bound=bound,
        ),
        num_epochs=None,
        num_steps=1,
    )
    start = start_of(trainer)
    train, calls = trainer.train, []

    def diverge_once(*arguments: Any, **options: Any) -> Any:
        result = train(*arguments, **options)
        calls.append(result)
        if len(calls) == 2:
            trainer.vector[3] = float("nan")
        return result

    trainer.train = diverge_once  # type: ignore[method-assign]
    received = receive(clients, start, 1)
    reply = clients.train(received, 0, round_number=1, learning_rate=0.05, clip=1.0)
    assert len(bound.after) == 3
    total = sum(after.double() for after in bound.after)
    assert torch.equal(update_of(clients, reply, start), total.float())


def test_groups_that_all_diverge_leave_nothing_that_could_be_used() -> None:
    trainer = make_trainer(optimiser="sgd")
    clients = make_clients(
        trainer,
        [np.arange(15)],
        groups=Groups(
            examples=[GROUPED],
            per_round=4,
            most=4,
            sample=fixed_groups(4, 4, from_seed(7)),
            bound=Bound(),
        ),
    )
    start = start_of(trainer)
    start[-1] = float("nan")
    received = receive(clients, start, 1)
    reply = clients.train(received, 0, round_number=1, learning_rate=0.05, clip=1.0)
    assert update_of(clients, reply, start).isnan().all()


def test_the_work_of_a_grouped_client_is_that_of_its_groups() -> None:
    clients = make_clients(
        make_trainer(),
        [np.arange(15)],
        groups=Groups(
            examples=[GROUPED],
            per_round=2,
            most=4,
            sample=fixed_groups(2, 4, from_seed(7)),
            bound=Bound(),
        ),
    )
    assert clients.total_steps(0) == round((1 + 1 + 1 + 2) * 2 / 4)
