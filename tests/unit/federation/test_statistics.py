"""What a client computes its statistics of: all of its examples, or some."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scaling_fl.core.state import GlobalState
from scaling_fl.federation.client import Clients, Tier
from scaling_fl.federation.downloads import Downloads
from scaling_fl.federation.link import Link
from scaling_fl.federation.statistics import Statistics
from scaling_fl.federation.work import LocalWork
from scaling_fl.learning.task import Batch, Indices, LossFunction, Statistic
from scaling_fl.learning.training.local import LocalTrainer
from tests.points import Regression

MINE = np.array([3, 0, 2])


def indices(model: nn.Module, loss: LossFunction, examples: Iterable[Batch]) -> Tensor:
    return torch.tensor([example.indices.item() for example in examples], dtype=torch.float32)


def seen(num_examples: int | None, round_number: int = 1, client: int = 0) -> list[float]:
    task = Regression()
    trainer = LocalTrainer(task.load_model(), task.loss, optimiser="sgd")
    size = min(num_examples or 3, 3)
    statistics = Statistics(by_name={"s": Statistic(size, indices)}, num_examples=num_examples)
    sent = statistics.send(
        trainer,
        task.load_examples("train"),
        MINE,
        batch_size=9,
        round_number=round_number,
        client=client,
    )
    assert sent["s"].num_bytes == len(bytes(sent["s"]))
    found: list[float] = sent["s"].decode().tolist()
    return found


def test_all_examples_are_seen_or_as_many_as_are_asked_for() -> None:
    assert seen(None) == seen(3) == seen(9) == [3, 0, 2]
    assert len(set(seen(2))) == 2
    assert set(seen(2)) < {3, 0, 2}


class OfLengths(NamedTuple):
    """Examples of which only the lengths are known."""

    lengths: Indices

    def batch(self, indices: Indices) -> Batch:
        return Batch({}, indices)


@pytest.mark.parametrize(("most_at_once", "batch_size"), [(2, 9), (9, 2)])
def test_those_of_a_batch_are_equally_long_and_no_more_than_in_training(
    most_at_once: int, batch_size: int
) -> None:
    task, batches = Regression(), list[list[int]]()

    def compute(model: nn.Module, loss: LossFunction, examples: Iterable[Batch]) -> Tensor:
        batches.extend(batch.indices.tolist() for batch in examples)
        return torch.zeros(1)

    trainer = LocalTrainer(task.load_model(), task.loss, optimiser="sgd")
    examples: Any = OfLengths(np.array([5, 7, 5, 5, 9, 5, 7, 5]))
    statistics = Statistics(by_name={"s": Statistic(1, compute, most_at_once)})
    mine = np.array([7, 6, 5, 3, 2, 1, 0])
    statistics.send(trainer, examples, mine, batch_size=batch_size, round_number=1, client=0)
    assert batches == [[7, 5], [3, 2], [0], [6, 1]]


def test_a_client_can_be_stopped_before_any_batch() -> None:
    task, link, asked = Regression(), Link(3), list[int]()
    trainer = LocalTrainer(task.load_model(), task.loss, optimiser="sgd")
    clients = Clients(
        trainer,
        task.load_examples("train"),
        [MINE],
        tiers=[Tier(work=LocalWork(batch_size=3, num_epochs=None, num_steps=2), link=link)],
        tier_of=[0],
        seed=0,
        statistics=Statistics(by_name={"s": Statistic(3, indices)}),
    )

    def check() -> None:
        asked.append(1)
        if len(asked) == 2 + 3:  # the steps and then the examples, one by one
            raise KeyboardInterrupt

    received = Downloads([link], GlobalState(trainer.vector.clone()), 1).received(0)
    with pytest.raises(KeyboardInterrupt):
        clients.train(received, 0, round_number=1, learning_rate=0.1, check=check)


def test_some_are_drawn_anew_in_every_round_and_alike_in_every_run() -> None:
    drawn = [seen(1, round_number) for round_number in range(1, 9)]
    assert drawn == [seen(1, round_number) for round_number in range(1, 9)]
    assert len({tuple(each) for each in drawn}) > 1
