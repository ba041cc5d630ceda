"""A whole round of a model of three numbers, with every number written out.

Two clients have two points each; y = w x, the loss is (w x - y)^2, its gradient 2 x (w x - y).
"""

import math

import numpy as np
import pytest
import torch

from scaling_fl.core.exchange import SingleExchange
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.client import Clients, Tier
from scaling_fl.federation.link import Link
from scaling_fl.federation.server import Server
from scaling_fl.federation.work import LocalWork
from scaling_fl.learning.training.local import LocalTrainer
from scaling_fl.methods.merging.means import mean
from scaling_fl.methods.server_optimisers import sgd
from tests.points import TRAIN, Points, Regression


def test_a_round() -> None:
    # What each client has, how it trains, and what travels: everything, in fp32.
    task, link = Regression(), Link(3)
    trainer = LocalTrainer(task.load_model(), task.loss, optimiser="sgd")
    work = LocalWork(batch_size=2, num_epochs=1, num_steps=None)
    clients = Clients(
        trainer,
        Points(TRAIN),
        [np.array([0, 1]), np.array([2, 3])],
        tiers=[Tier(work=work, link=link)],
        tier_of=[0, 0],
        seed=0,
    )
    server = Server(
        SingleExchange(1), mean(), sgd(1.0), trainer.vector, links=[link], min_clients=1
    )
    state = GlobalState(torch.zeros(3))

    # The server sends w = 0: a header of 28 bytes and three numbers of 4.
    downloads = server.downloads(state)
    received = downloads.received(0)
    assert received.vector.tolist() == [0.0, 0.0, 0.0]
    assert received.num_bytes == 28 + 3 * 4

    # Client 0: errors -1 and -1, mean gradient (-2, 0, 0); a step of 1/4 leads to (0.5, 0, 0).
    reply = clients.train(received, 0, round_number=1, learning_rate=0.25)
    assert trainer.vector.tolist() == [0.5, 0.0, 0.0]
    assert reply.report.metrics == {"loss": 1.0, "distance": 1.0}
    # Client 1: errors -2 and -1, gradients (0, -4, 0) and (0, 0, -4), a step to (0, 0.5, 0.5).
    reply = clients.train(received, 1, round_number=1, learning_rate=0.25)
    assert trainer.vector.tolist() == [0.0, 0.5, 0.5]
    assert reply.report.metrics == {"loss": 2.5, "distance": 1.5}

    # The server has them train while it adds: 0 + 0.5 * (0.5, 0, 0) + 0.5 * (0, 0.5, 0.5).
    replies = clients.train_each([0, 1], downloads, state, learning_rate=0.25, clip=math.inf)
    after, step = server.step(state, downloads, {0: 0.5, 1: 0.5}, replies)
    assert after.vector.tolist() == [0.25, 0.25, 0.25]
    assert state.vector.tolist() == [0.0, 0.0, 0.0]  # the state before is as it was
    assert (after.round, after.total_bytes) == (1, 4 * (28 + 3 * 4))
    assert [r.update_norm for r in step.clients] == pytest.approx([0.5, 0.5**0.5])
    # Distances to the mean: (0.25, -0.25, -0.25) and its negative.
    assert step.metrics["update.drift"] == pytest.approx((3 * 0.25**2) ** 0.5)
