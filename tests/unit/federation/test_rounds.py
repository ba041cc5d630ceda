"""The loop: resumed equals uninterrupted, what is recorded, and how little memory it takes."""

import gc
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch

from scaling_fl.conformance.workers import on_workers
from scaling_fl.core.exchange import Exchange, SingleExchange
from scaling_fl.core.records import RoundReport
from scaling_fl.core.seeding import from_seed
from scaling_fl.core.state import GlobalState, Memory
from scaling_fl.federation.client import Clients
from scaling_fl.federation.evaluator import Evaluator
from scaling_fl.federation.link import Link
from scaling_fl.federation.rounds import Hooks, Rounds, run_rounds
from scaling_fl.federation.server import Server
from scaling_fl.federation.stopping import Stopping, keep_to_bytes
from scaling_fl.learning.task import of_test
from scaling_fl.learning.training.local import LocalTrainer
from scaling_fl.methods.merging.means import mean
from scaling_fl.methods.sampling import fixed_cohorts
from scaling_fl.methods.server_optimisers import sgd
from scaling_fl.methods.weighting import by_examples
from scaling_fl.methods.wire.direction import Direction
from scaling_fl.methods.wire.payloads import payload_size
from tests.live_tensors import live_bytes
from tests.unit.federation.federations import (
    TASK,
    even_partitions,
    make_clients,
    make_examples,
    make_trainer,
)


@dataclass
class Federation:
    """A worker and all that it was asked to record."""

    state: GlobalState
    trainer: LocalTrainer
    clients: Clients
    rounds: Rounds
    stopping: Stopping | None = None
    reports: list[RoundReport] = field(default_factory=list)
    vectors: list[torch.Tensor] = field(default_factory=list)

    def run(
        self,
        exchange: Exchange | None = None,
        *,
        check: Callable[[], None] = lambda: None,
        progress: Callable[..., None] = lambda *_: None,
    ) -> "Federation":
        exchange = exchange or SingleExchange(1)

        def record(state: GlobalState, report: RoundReport) -> GlobalState:
            assert state.round == report.round
            self.reports.append(report)
            self.vectors.append(state.vector.clone())
            self.state = state
            return state

        run_rounds(
            self.state,
            self.rounds,
            clients=self.clients,
            server=Server(
                exchange,
                mean(),
                sgd(1.0),
                self.trainer.vector,
                links=[tier.link for tier in self.clients.tiers],
                min_clients=1,
            ),
            evaluate=Evaluator(
                self.trainer,
                [of_test(TASK, make_examples(30, seed=9))],
                batch_size=8,
                detailed=False,
            ),
            exchange=exchange,
            stopping=self.stopping or Stopping(exchange),
            hooks=Hooks(record=record, progress=progress, check=check),
        )
        return self


def make_federation(
    *,
    num_rounds: int = 4,
    num_clients: int = 5,
    cohort_size: int = 3,
    eval_every: int = 1,
    evaluates_download: bool = False,
    learning_rate: Callable[[int], float] = lambda round_number: 1e-2,
    state: GlobalState | None = None,
    **options: Any,
) -> Federation:
    trainer = make_trainer()
    examples = make_examples(64)
    partitions = even_partitions(num_clients, len(examples))
    clients = make_clients(trainer, partitions, examples=examples, **options)

    def shares(cohort: list[int]) -> dict[int, float]:
        weights = by_examples([clients.num_examples(client) for client in cohort])
        return dict(zip(cohort, weights, strict=True))

    rounds = Rounds(
        num_rounds=num_rounds,
        num_clients=num_clients,
        cohort=fixed_cohorts(num_clients, cohort_size, from_seed(3)),
        shares=shares,
        learning_rate=learning_rate,
        eval_every=eval_every,
        evaluates_download=evaluates_download,
    )
    return Federation(state or GlobalState(trainer.vector.clone()), trainer, clients, rounds)


def results(reports: list[RoundReport]) -> list[dict[str, float]]:
    return [{k: v for k, v in r.metrics.items() if not k.startswith("time.")} for r in reports]


def test_a_resumed_run_equals_an_uninterrupted_one() -> None:
    whole = make_federation(num_rounds=4).run()
    first = make_federation(num_rounds=2).run()
    kept = GlobalState(
        first.state.vector.clone(), round=first.state.round, total_bytes=first.state.total_bytes
    )
    second = make_federation(num_rounds=4, state=kept).run()
    assert torch.equal(second.state.vector, whole.state.vector)
    assert results(first.reports + second.reports) == results(whole.reports)
    assert [report.round for report in second.reports] == [3, 4]


@pytest.mark.parametrize("size", [2, 3])
def test_any_number_of_workers_comes_to_the_same(size: int) -> None:
    federations = [make_federation(num_rounds=2) for _ in range(size + 1)]
    for federation in federations:
        for module in federation.trainer.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # it draws from the generator that these threads share
    alone = federations[size].run()
    for worker in on_workers(size, lambda exchange: federations[exchange.rank].run(exchange)):
        assert torch.equal(worker.state.vector, alone.state.vector)
        assert results(worker.reports) == results(alone.reports)


def test_a_round_reports_what_its_clients_did() -> None:
    federation = make_federation(num_rounds=3).run()
    bytes_each_way = payload_size(federation.trainer.layout.size, None, "none")
    for number, report in enumerate(federation.reports, start=1):
        cohort = federation.rounds.cohort(number)
        assert [row.client for row in report.clients] == cohort
        assert report.metrics["bytes.download"] == 3 * bytes_each_way
        assert report.metrics["bytes.upload"] == 3 * bytes_each_way
        assert report.metrics["bytes.total"] == number * 6 * bytes_each_way
        weights = np.array([row.num_examples for row in report.clients])
        losses = np.array([row.metrics["loss"] for row in report.clients])
        assert report.metrics["train.loss"] == pytest.approx(np.average(losses, weights=weights))
        norms = [row.update_norm for row in report.clients]
        assert report.metrics["update.norm_mean"] == pytest.approx(np.mean(norms))
        assert 0 < report.metrics["update.drift"] < max(norms)
        times = [report.metrics[f"time.{part}_seconds"] for part in ("train", "exchange", "round")]
        assert times[0] + times[1] <= times[2]
    first, last = (federation.reports[i].metrics["validation.loss"] for i in (0, -1))
    assert last < first


def test_evaluation_happens_when_due_and_on_the_last_round() -> None:
    federation = make_federation(num_rounds=5, eval_every=2).run()
    evaluated = ["validation.loss" in report.metrics for report in federation.reports]
    assert evaluated == [False, True, False, True, True]


def test_the_round_that_ends_a_run_is_evaluated_and_the_last() -> None:
    whole = make_federation(num_rounds=6, eval_every=2).run()
    ended = make_federation(num_rounds=6, eval_every=2)
    bytes_of_three = int(whole.reports[2].metrics["bytes.total"])
    ended.stopping = Stopping(
        SingleExchange(1),
        {"bytes": keep_to_bytes(bytes_of_three)},
        next_bytes=lambda state: ended.clients.num_bytes(
            ended.rounds.cohort(state.round + 1, ""), state
        ),
    )
    ended.run()
    assert [report.stopped_by for report in ended.reports[:-1]] == ["", ""]
    last = ended.reports[-1]
    assert last.round == 3
    after_four = int(whole.reports[3].metrics["bytes.total"])
    assert last.stopped_by == f"bytes (one more round would make it {after_four:,} bytes)"
    assert "validation.loss" in last.metrics
    assert results(ended.reports[:2]) == results(whole.reports[:2])
    assert [report.stopped_by for report in whole.reports] == [""] * 6


def test_each_round_trains_with_its_own_learning_rate() -> None:
    """A rate of nearly nothing in the second round leaves the state as good as unmoved."""
    rates = {1: 1e-2, 2: 1e-12, 3: 1e-2}
    federation = make_federation(num_rounds=3, learning_rate=rates.__getitem__).run()
    moves = [
        float((b - a).norm())
        for a, b in zip(federation.vectors, federation.vectors[1:], strict=False)
    ]
    assert moves[0] < 1e-6 < 1e-2 < moves[1]


def test_a_stop_in_the_middle_leaves_the_last_finished_round() -> None:
    whole = make_federation(num_rounds=2).run()
    stopped = make_federation(num_rounds=5)
    calls: list[int] = []

    def check() -> None:
        calls.append(1)
        if len(stopped.reports) == 2 and len(calls) % 5 == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped.run(check=check)
    assert stopped.state.round == 2
    assert torch.equal(stopped.state.vector, whole.state.vector)


@pytest.mark.slow
def test_64_clients_take_no_more_memory_than_2() -> None:
    """One model, its gradients, one optimiser state, the global vector and the exact sum."""
    sizes: dict[int, int] = {}
    for num_clients in (2, 64):
        federation = make_federation(
            num_rounds=2,
            num_clients=num_clients,
            cohort_size=num_clients,
            num_epochs=None,
            num_steps=1,
        )

        def weigh(number: int, client: int, *_: object, last: int = num_clients - 1) -> None:
            # The last turn of a round has all that could have piled up behind it.
            if (number, client) == (2, last):
                sizes[last + 1] = live_bytes()

        before = live_bytes() - 4 * 2 * federation.trainer.layout.size  # the model, the state
        federation.run(progress=weigh)
        sizes[num_clients] -= before + sum(v.nbytes for v in federation.vectors[:1])
        size = federation.trainer.layout.size
        rounding = 2 * 8 * min(size, 1 << 16)
        # In units of the model: itself, gradients, two moments, global vector, sum of 8 bytes.
        assert 7 * 4 * size <= sizes[num_clients] <= 7 * 4 * size + rounding + 20_000
    assert sizes[64] == pytest.approx(sizes[2], abs=5000)  # the batches differ in width


def test_every_tier_is_evaluated_on_what_it_would_receive() -> None:
    size = make_trainer().layout.size
    links = [
        Link(size),
        Link(size, Direction(codec="nf4")),
        Link(size, Direction(density=0.01)),
    ]
    report = make_federation(num_rounds=1, evaluates_download=True, links=links).run().reports[0]
    losses = [report.metrics[f"validation.loss.tier{tier}"] for tier in range(3)]
    assert losses[0] == report.metrics["validation.loss"]
    assert len(set(losses)) == 3
    assert [row.tier for row in report.clients] == [row.client % 3 for row in report.clients]


def test_feedback_and_a_frozen_mask_survive_a_resume() -> None:
    link = Link(
        make_trainer().layout.size,
        Direction(density=0.5),
        Direction(codec="nf4", density=0.2),
        error_feedback=True,
        server_freeze=True,
    )
    whole = make_federation(num_rounds=4, links=[link]).run()
    first = make_federation(num_rounds=2, links=[link]).run()
    kept = GlobalState(
        first.state.vector.clone(),
        memory=Memory.from_tensors(first.state.memory.to_tensors()),
        round=2,
        total_bytes=first.state.total_bytes,
    )
    second = make_federation(num_rounds=4, state=kept, links=[link]).run()
    assert torch.equal(second.state.vector, whole.state.vector)
    assert results(first.reports + second.reports) == results(whole.reports)
    forgetful = GlobalState(first.state.vector.clone(), round=2)
    other = make_federation(num_rounds=4, state=forgetful, links=[link]).run()
    assert not torch.equal(other.state.vector, whole.state.vector)


def test_a_round_that_nobody_was_drawn_for_is_a_round_like_any_other() -> None:
    cohorts = {1: [0, 2], 2: [], 3: [1]}
    federation = make_federation(num_rounds=3)
    federation.rounds = replace(federation.rounds, cohort=lambda number, _: cohorts[number])
    federation.run()
    assert torch.equal(federation.vectors[1], federation.vectors[0])
    assert not torch.equal(federation.vectors[2], federation.vectors[1])
    empty = federation.reports[1]
    assert (empty.round, empty.clients) == (2, [])
    assert empty.metrics["bytes.upload"] == empty.metrics["bytes.download"] == 0.0
    assert not any(name.startswith("train.") for name in empty.metrics)
    losses = [report.metrics["validation.loss"] for report in federation.reports]
    assert losses[0] == losses[1] != losses[2]


def test_a_step_keeps_nothing_of_the_state_before_it_alive() -> None:
    trainer = make_trainer()
    clients, scratch = make_clients(trainer, even_partitions(2, 48)), trainer.vector
    links = [tier.link for tier in clients.tiers]
    server = Server(SingleExchange(1), mean(), sgd(1.0), scratch, links=links, min_clients=1)
    state = GlobalState(scratch.clone())
    before = weakref.ref(state.vector)
    gc.disable()  # circles would live on until the collector finds them, each with a whole vector
    try:
        downloads = server.downloads(state)
        replies = clients.train_each([0, 1], downloads, state, learning_rate=0.1, clip=math.inf)
        after, _ = server.step(state, downloads, {0: 0.5, 1: 0.5}, replies)
        assert after.round == 1
        del state, downloads, replies
        assert before() is None
    finally:
        gc.enable()
