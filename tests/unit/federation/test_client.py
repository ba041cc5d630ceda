"""A client's turn depends on (seed, round, client) and the global vector, and on nothing else."""

import numpy as np
import pytest
import torch

from scaling_fl.core.exact_sum import LIMIT
from scaling_fl.federation.client import Clients, LocalWork
from scaling_fl.methods.payloads import payload_size
from tests.unit.federation.federations import even_parts, make_clients, make_trainer, start_of


def orders(clients: Clients, client: int, round_number: int) -> list[list[int]]:
    return [
        batch.tolist() for batch in clients._order(client, round_number, clients._parts[client])
    ]


def test_a_turn_reports_what_happened_in_it() -> None:
    trainer = make_trainer()
    clients = make_clients(trainer, even_parts(4), num_epochs=2)
    start = start_of(trainer)
    seen: list[tuple[int, int, int, int]] = []
    update, report = clients.train(
        clients.download(start, 3),
        2,
        round_number=3,
        learning_rate=1e-3,
        progress=lambda *event: seen.append(event[:4]),
    )
    trained = trainer.vector + start
    assert torch.allclose(update.vector, trained - start)
    assert (report.round, report.client, report.num_examples) == (3, 2, 12)
    assert report.update_norm == pytest.approx(float(update.vector.norm()))
    assert (
        report.download_bytes
        == report.upload_bytes
        == payload_size(trainer.layout.size, None, "none")
    )
    assert report.failure is None
    assert 0.0 <= report.accuracy <= 1.0
    assert report.loss == pytest.approx(1.1, abs=0.3)  # log 3 at first
    assert all(event[:2] == (3, 2) and event[3] == 6 for event in seen)


@pytest.mark.parametrize(("epochs", "steps", "expected"), [(2, None, 6), (None, 5, 5)])
def test_the_work_is_counted_in_steps_before_it_is_done(
    epochs: int | None, steps: int | None, expected: int
) -> None:
    clients = make_clients(make_trainer(), even_parts(4), num_epochs=epochs, num_steps=steps)
    assert clients.total_steps(1) == expected
    assert len(orders(clients, 1, 1)) == expected


def test_every_epoch_visits_each_example_once_and_a_partial_batch_is_kept() -> None:
    parts = even_parts(4)
    clients = make_clients(make_trainer(), parts, batch_size=5, num_epochs=3)
    batches = orders(clients, 1, 1)
    assert [len(batch) for batch in batches] == [5, 5, 2] * 3
    for epoch in range(3):
        visited = [index for batch in batches[3 * epoch : 3 * epoch + 3] for index in batch]
        assert sorted(visited) == parts[1].tolist()


def test_steps_begin_a_new_epoch_when_one_is_used_up() -> None:
    parts = even_parts(4)
    clients = make_clients(make_trainer(), parts, num_epochs=None, num_steps=7)
    batches = orders(clients, 0, 1)
    assert sorted(i for batch in batches[:3] for i in batch) == parts[0].tolist()
    assert sorted(i for batch in batches[3:6] for i in batch) == parts[0].tolist()
    assert len(batches) == 7


def test_the_order_is_new_in_every_epoch_round_and_client_and_the_same_on_a_resume() -> None:
    whole = even_parts(1)[0]
    clients = make_clients(make_trainer(), [whole, whole], batch_size=48, num_epochs=2)
    drawn = [
        tuple(epoch)
        for client in (0, 1)
        for round_ in (1, 2)
        for epoch in orders(clients, client, round_)
    ]
    assert len(set(drawn)) == len(drawn) == 8
    again = make_clients(make_trainer(), [whole, whole], batch_size=48, num_epochs=2)
    assert orders(again, 1, 2) == orders(clients, 1, 2)
    other = make_clients(make_trainer(), [whole, whole], batch_size=48, num_epochs=2, seed=8)
    assert orders(other, 1, 2) != orders(clients, 1, 2)


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_nothing_of_a_client_reaches_the_next_one(optimiser: str) -> None:
    momentum = {"momentum": 0.9} if optimiser == "sgd" else {}
    trainer = make_trainer(optimiser=optimiser, weight_decay=0.01, **momentum)
    clients = make_clients(trainer, even_parts(4))
    start = start_of(trainer)

    def turn(client: int) -> torch.Tensor:
        received = clients.download(start, 1)
        update, _ = clients.train(received, client, round_number=1, learning_rate=1e-2)
        return update.vector.clone()

    alone = turn(2)
    for other in (0, 3, 1):
        assert not torch.equal(turn(other), alone)
    torch.rand(5)  # randomness that something else draws
    assert torch.equal(turn(2), alone)
    fresh = make_trainer(optimiser=optimiser, weight_decay=0.01, **momentum)
    clients = make_clients(fresh, even_parts(4))
    update, _ = clients.train(clients.download(start, 1), 2, round_number=1, learning_rate=1e-2)
    assert torch.equal(update.vector, alone)


def test_dropout_is_drawn_from_seed_round_and_client() -> None:
    """With a single example there is no order, so all that differs is the dropout."""
    one = [np.array([5]), np.array([5])]
    updates = {}
    for seed, round_number, client in [(7, 1, 0), (8, 1, 0), (7, 2, 0), (7, 1, 1)]:
        trainer = make_trainer(optimiser="sgd")
        clients = make_clients(trainer, one, seed=seed)
        start = clients.download(start_of(trainer), round_number)
        update, _ = clients.train(start, client, round_number=round_number, learning_rate=0.1)
        updates[seed, round_number, client] = tuple(update.vector[:2000].tolist())
    assert len(set(updates.values())) == 4


def test_a_loss_that_is_not_finite_leaves_the_client_out() -> None:
    trainer = make_trainer(optimiser="sgd")
    clients = make_clients(trainer, even_parts(4))
    start = start_of(trainer)
    start[0] = float("nan")
    start[-1] = float("nan")
    _, report = clients.train(clients.download(start, 1), 0, round_number=1, learning_rate=0.1)
    assert report.failure == "its loss is nan"


@pytest.mark.parametrize("learning_rate", [1e7, 1e38])
def test_an_update_out_of_bounds_leaves_the_client_out(learning_rate: float) -> None:
    """A single step has a finite loss, and diverges all the same."""
    trainer = make_trainer(optimiser="sgd")
    clients = make_clients(trainer, even_parts(4), num_epochs=None, num_steps=1)
    start = clients.download(start_of(trainer), 1)
    _, report = clients.train(start, 0, round_number=1, learning_rate=learning_rate)
    assert np.isfinite(report.loss)
    assert report.failure == f"its update is not finite or has a coordinate beyond {LIMIT:g}"


def test_a_turn_can_be_abandoned_before_any_step() -> None:
    trainer = make_trainer()
    clients = make_clients(trainer, even_parts(2))
    start = clients.download(start_of(trainer), 1)
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
