"""SCAFFOLD on quadratic losses of three numbers, against the paper's algorithm in fp64."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from scaling_fl.conformance.workers import on_workers
from scaling_fl.core.exact_sum import LIMIT
from scaling_fl.core.exchange import Exchange, SingleExchange
from scaling_fl.core.state import GlobalState
from scaling_fl.federation import scaffold
from scaling_fl.federation.client import Clients, Tier
from scaling_fl.federation.link import Link
from scaling_fl.federation.scaffold import CONTROL, Controls
from scaling_fl.federation.server import Server, Step
from scaling_fl.federation.work import LocalWork
from scaling_fl.learning.training.local import LocalTrainer
from scaling_fl.methods.merging.means import mean
from scaling_fl.methods.server_optimisers import sgd
from tests.points import Points, Regression

Rows = list[tuple[list[int], int]]
VARIED: list[Rows] = [
    [([3, 0, 0], 3), ([0, 1, 0], 0), ([0, 0, 1], 1)],
    [([1, 0, 0], 0), ([0, 3, 0], 3), ([0, 0, 1], 0), ([1, 1, 1], 2)],
    [([1, 2, 0], 1), ([0, 1, 1], 3)],
]
"""What three clients have, of unequal numbers of points, whose losses have unequal curvatures."""
STEPS, RATE = 4, 0.05


class Federation:
    """Clients of points that take so many steps on all of their points; one worker's part."""

    def __init__(
        self,
        rows: list[Rows],
        *,
        exchange: Exchange | None = None,
        controls: bool = True,
        num_steps: int = STEPS,
        weight_decay: float = 0.0,
        prox_mu: float = 0.0,
        uniform: bool = False,
    ) -> None:
        self.exchange = exchange or SingleExchange(1)
        self.counts = [1 if uniform else len(each) for each in rows]
        task, link = Regression(), Link(3, controls=controls)
        self.trainer = LocalTrainer(
            task.load_model(),
            task.loss,
            optimiser="sgd",
            weight_decay=weight_decay,
            prox_mu=prox_mu,
        )
        ends = np.cumsum([len(each) for each in rows])
        partitions: list[NDArray[np.int64]] = np.split(np.arange(ends[-1]), ends[:-1])
        work = LocalWork(batch_size=100, num_epochs=None, num_steps=num_steps)
        self.clients = Clients(
            self.trainer,
            Points([row for each in rows for row in each]),
            partitions,
            tiers=[Tier(work=work, link=link)],
            tier_of=[0] * len(rows),
            seed=0,
        )
        cpu = torch.device("cpu")
        sums = Controls(self.exchange, 3, cpu, self.shares(range(len(rows))))
        self.server = Server(
            self.exchange,
            mean(),
            sgd(1.0),
            self.trainer.vector,
            links=[link],
            min_clients=1,
            controls=sums if controls else None,
        )

    def shares(self, cohort: Sequence[int]) -> dict[int, float]:
        total = sum(self.counts[client] for client in cohort)
        return {client: self.counts[client] / total for client in cohort}

    def play(
        self, state: GlobalState, cohort: list[int], *, learning_rate: float = RATE
    ) -> tuple[GlobalState, Step]:
        mine = [client for client in cohort if client % self.exchange.size == self.exchange.rank]
        downloads = self.server.downloads(state)
        replies = self.clients.train_each(
            mine, downloads, state, learning_rate=learning_rate, clip=math.inf
        )
        return self.server.step(state, downloads, self.shares(cohort), replies)

    def run(self, cohorts: Sequence[list[int]]) -> GlobalState:
        state = GlobalState(torch.zeros(3))
        for cohort in cohorts:
            state, _ = self.play(state, cohort)
        return state


def gradient(rows: Rows, w: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y = (np.array(each, dtype=np.float64) for each in zip(*rows, strict=True))
    found: NDArray[np.float64] = 2 * x.T @ (x @ w - y) / len(rows)
    return found


def by_the_paper(
    rows: list[Rows],
    cohorts: Sequence[list[int]],
    weights: list[int],
    *,
    decay: float = 0.0,
    mu: float = 0.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return x, c and all c_i after the rounds: algorithm 1, option II, with weighted means.

    With mu, a client's loss is that of FedProx, whose gradient its control variate then averages.
    """
    x, c, own = np.zeros(3), np.zeros(3), np.zeros((len(rows), 3))
    for cohort in cohorts:
        moves, changes = np.zeros(3), np.zeros(3)
        for i in cohort:
            y = x.copy()
            for _ in range(STEPS):
                y = y - RATE * (gradient(rows[i], y) + decay * y + mu * (y - x) + c - own[i])
            new = own[i] - c + (x - y) / (STEPS * RATE)
            moves += weights[i] / sum(weights[j] for j in cohort) * (y - x)
            changes += weights[i] / sum(weights) * (new - own[i])
            own[i] = new
        x, c = x + moves, c + changes
    return x, c, own


@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize(("decay", "mu"), [(0.0, 0.0), (0.1, 0.0), (0.0, 1.0), (0.1, 1.0)])
def test_rounds_are_those_of_the_paper(uniform: bool, decay: float, mu: float) -> None:
    cohorts = [[0, 1], [1, 2], [0, 2], [2], [0, 1, 2], [1], [], [0, 1]]
    weights = [1, 1, 1] if uniform else [3, 4, 2]
    x, c, own = by_the_paper(VARIED, cohorts, weights, decay=decay, mu=mu)
    federation = Federation(VARIED, weight_decay=decay, prox_mu=mu, uniform=uniform)
    state = federation.run(cohorts)
    assert state.vector.numpy() == pytest.approx(x, abs=2e-6)
    assert state.memory.server[CONTROL].numpy() == pytest.approx(c, abs=2e-5)
    for client, memory in state.memory.clients.items():
        assert memory[CONTROL].numpy() == pytest.approx(own[client], abs=2e-5)
    assert np.linalg.norm(own - c) > 1.0


def test_what_the_server_remembers_is_the_mean_of_what_all_clients_do() -> None:
    state = Federation(VARIED).run([[0, 1], [1], [0], [1, 0]])  # client 2 never takes part
    assert sorted(state.memory.clients) == [0, 1]
    own = [state.memory.clients[client][CONTROL] for client in (0, 1)]
    expected = 3 / 9 * own[0] + 4 / 9 * own[1]
    assert torch.allclose(state.memory.server[CONTROL], expected, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_many_local_steps_drift_to_a_wrong_point_without_it_and_not_with_it() -> None:
    """Clients pull towards different points with different strength.

    After many steps each client is at its own minimum, and the mean of these is not the minimum of
    the mean.
    """
    rows, weights = VARIED[:2], np.array([3, 4]) / 7
    x, y = (
        np.concatenate([np.array(each) * (w / len(r)) ** 0.5 for each, r, w in parts])
        for parts in (
            [([x for x, _ in r], r, w) for r, w in zip(rows, weights, strict=True)],
            [([y for _, y in r], r, w) for r, w in zip(rows, weights, strict=True)],
        )
    )
    minimum = np.linalg.lstsq(x, y, rcond=None)[0]
    away = {}
    for controls, mu in ((False, 0.0), (True, 0.0), (True, 0.5)):
        federation = Federation(rows, controls=controls, num_steps=25, prox_mu=mu)
        state = federation.run([[0, 1]] * 150)
        away[controls, mu] = float(np.linalg.norm(state.vector.numpy() - minimum))
    assert away[False, 0.0] > 0.2
    assert away[True, 0.0] < 1e-4
    assert away[True, 0.5] < 1e-4  # at a fixed point nobody moves, and the proximal term is 0


def test_a_client_that_fails_changes_neither_what_it_remembers_nor_what_the_server_does() -> None:
    broken = [([1, 0, 0], 10**30)]
    with_it, without = Federation([*VARIED, broken]), Federation([*VARIED, broken])
    start = with_it.run([[0, 1]])
    after, step = with_it.play(start, [1, 2, 3])
    assert [report.failure for report in step.clients] == [None, None, "its loss is inf"]
    expected, _ = without.play(start, [1, 2])
    assert torch.allclose(after.vector, expected.vector, rtol=1e-6)
    assert torch.equal(after.memory.server[CONTROL], expected.memory.server[CONTROL])
    assert sorted(after.memory.clients) == [0, 1, 2]


def test_a_client_whose_gradients_no_sum_can_hold_is_left_out() -> None:
    far = [([1, 0, 0], 10**4)]  # a gradient of 20,000, but a step of 0.02
    federation = Federation([*VARIED, far])
    after, step = federation.play(GlobalState(torch.zeros(3)), [0, 3], learning_rate=1e-6)
    assert [report.failure for report in step.clients] == [
        None,
        f"its control variate is not finite or changes by more than {LIMIT:g}",
    ]
    assert sorted(after.memory.clients) == [0]


def test_placement_changes_nothing() -> None:
    cohorts = [[0, 1, 2], [1, 2], [0], [2, 0]]
    alone = Federation(VARIED).run(cohorts)

    def work(exchange: Exchange) -> GlobalState:
        return Federation(VARIED, exchange=exchange).run(cohorts)

    for state in on_workers(3, work):
        found, expected = ({"x": s.vector} | s.memory.to_tensors() for s in (state, alone))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_control_variates_are_counted_both_ways() -> None:
    federation = Federation(VARIED)
    state, step = federation.play(GlobalState(torch.zeros(3)), [0, 1])
    vector = 28 + 3 * 4
    assert {(r.download_bytes, r.upload_bytes) for r in step.clients} == {(2 * vector, 2 * vector)}
    assert state.total_bytes == 8 * vector
    assert Link(3, controls=True).num_bytes(1) == (2 * vector, 2 * vector)


def test_a_first_round_is_that_of_the_plain_mean() -> None:
    """All control variates are 0 in it; the second round differs."""
    plain, corrected = (Federation(VARIED, controls=controls) for controls in (False, True))
    for rounds in (1, 2):
        same = torch.equal(*(f.run([[0, 1]] * rounds).vector for f in (plain, corrected)))
        assert same == (rounds == 1)


def test_a_client_that_has_not_moved_for_lack_of_steps_or_rate_remembers_what_it_did() -> None:
    control, vector = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    assert scaffold.change(control, vector, vector, 0.0).tolist() == [0.0, 0.0]
    assert scaffold.change(control, vector, vector - 1, 0.5).tolist() == [1.0, 0.0]
