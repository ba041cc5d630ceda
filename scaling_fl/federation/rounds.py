"""The loop: sample, send, train, merge, step, evaluate, record."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from scaling_fl.core.exchange import Exchange
from scaling_fl.core.records import RoundReport
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.client import ClientProgress, Clients
from scaling_fl.federation.evaluator import Evaluator
from scaling_fl.federation.placement import deal
from scaling_fl.federation.privacy import CLIP
from scaling_fl.federation.server import Server, Step


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is fixed for every round before the first one, each a function of the round alone."""

    num_rounds: int
    num_clients: int
    cohort: Callable[[int], list[int]]
    shares: Callable[[list[int]], dict[int, float]]
    learning_rate: Callable[[int], float]
    eval_every: int
    epsilon: Callable[[int], float] | None = None
    """The privacy spent after a number of rounds, if there is any privacy."""
    plain_bytes: int = 0
    """The length of the vector's payload without codec and masks."""
    evaluates_download: bool = False
    """Evaluate what the clients of the next round will receive beside the state itself."""

    def evaluates(self, round_number: int) -> bool:
        return round_number % self.eval_every == 0 or round_number == self.num_rounds


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What happens beside the rounds: recording each, showing progress, being asked to stop."""

    record: Callable[[GlobalState, RoundReport], GlobalState]
    """Record a finished round; returns its state with the digest of all rounds so far."""
    progress: ClientProgress
    check: Callable[[], None]


def run_rounds(
    state: GlobalState,
    plan: Plan,
    *,
    clients: Clients,
    server: Server,
    evaluate: Evaluator,
    exchange: Exchange,
    watch: Watch,
) -> GlobalState:
    """Run the rounds that are left and return the last state; all workers do so in step.

    Source: arXiv 1602.05629, algorithm 1.
    """
    work = [clients.total_steps(client) for client in range(plan.num_clients)]
    for number in range(state.round + 1, plan.num_rounds + 1):
        began = time.perf_counter()
        cohort = plan.cohort(number)
        worker_of = deal(cohort, work, exchange.sites)
        mine = [client for client in cohort if worker_of[client] == exchange.rank]
        delivery = server.deliver(state)
        replies = clients.train_each(
            mine,
            delivery,
            state,
            learning_rate=plan.learning_rate(number),
            clip=server.clip(state),
            progress=watch.progress,
            check=watch.check,
        )
        state, step = server.step(state, delivery, plan.shares(cohort), replies)
        metrics = _round_metrics(state, step, plan, time.perf_counter() - began)
        if plan.evaluates(number):
            metrics |= _evaluate(state, plan, server, evaluate, exchange)
        metrics["time.round_seconds"] = time.perf_counter() - began
        report = RoundReport(round=number, metrics=metrics, clients=step.clients)
        state = watch.record(state, report)
    return state


def _evaluate(
    state: GlobalState, plan: Plan, server: Server, evaluate: Evaluator, exchange: Exchange
) -> dict[str, float]:
    """Evaluate the global state and, where they differ, what each tier would receive of it."""
    metrics = evaluate(state.vector, exchange)
    delivery = server.deliver(state)
    if delivery.num_tiers > 1:
        for tier in range(delivery.num_tiers):
            found = evaluate(delivery.received(tier).vector, exchange)
            metrics |= {f"{name}.tier{tier}": value for name, value in found.items()}
    elif plan.evaluates_download:
        found = evaluate(delivery.received(0).vector, exchange)
        metrics |= {
            name.replace("validation.", "download.", 1): value for name, value in found.items()
        }
    return metrics


def _round_metrics(state: GlobalState, step: Step, plan: Plan, seconds: float) -> dict[str, float]:
    metrics = step.metrics | _training_metrics(step)
    metrics |= {
        "bytes.download": float(sum(report.download_bytes for report in step.clients)),
        "bytes.upload": float(sum(report.upload_bytes for report in step.clients)),
        "bytes.total": float(state.total_bytes),
        "bytes.plain": float(2 * plan.plain_bytes * len(step.clients)),
        "time.train_seconds": seconds - step.exchange_seconds,
        "time.exchange_seconds": step.exchange_seconds,
    }
    if plan.epsilon:
        metrics["privacy.epsilon"] = plan.epsilon(state.round)
    if CLIP in state.memory.server:
        metrics["privacy.clip"] = float(state.memory.server[CLIP])
    return metrics


def _training_metrics(step: Step) -> dict[str, float]:
    usable = [report for report in step.clients if report.failure is None]
    num_examples = sum(report.num_examples for report in usable)
    if not num_examples:  # Poisson sampling may draw nobody, or no group of anybody
        return {}

    def mean(name: str) -> float:
        values = (r.metrics.get(name, 0.0) * r.num_examples for r in usable)
        return math.fsum(values) / num_examples

    names = dict.fromkeys(name for report in usable for name in report.metrics)
    return {f"train.{name}": mean(name) for name in names} | {
        "update.norm_mean": math.fsum(r.update_norm for r in usable) / len(usable),
    }
