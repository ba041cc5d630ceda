"""The loop: sample, train, merge, step, evaluate, record."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from scaling_fl.core.exchange import Exchange
from scaling_fl.core.records import RoundReport
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.client import ClientProgress, Clients
from scaling_fl.federation.evaluator import Evaluator
from scaling_fl.federation.memory import Turns
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


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What happens beside the rounds: recording each, showing progress, being asked to stop."""

    record: Callable[[GlobalState, RoundReport], None]
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
) -> None:
    """Run the rounds that are left, stepping ``state`` in place; all workers do so in step.

    Source: arXiv 1602.05629, algorithm 1.
    """
    work = [clients.total_steps(client) for client in range(plan.num_clients)]
    for number in range(state.round + 1, plan.num_rounds + 1):
        began = time.perf_counter()
        cohort = plan.cohort(number)
        workers = deal(cohort, work, exchange.sites)
        turns = Turns(clients, state, number)
        updates = (
            turns.train(
                client,
                learning_rate=plan.learning_rate(number),
                clip=server.clip(state),
                progress=watch.progress,
                check=watch.check,
            )
            for client in cohort
            if workers[client] == exchange.rank
        )
        step = server.step(state, plan.shares(cohort), updates)
        turns.hand_on([c.client for c in step.clients if c.failure is None], exchange)
        trained = time.perf_counter()
        state.round = number
        metrics = _round_metrics(step, trained - began)
        state.total_bytes += sum(r.download_bytes + r.upload_bytes for r in step.clients)
        metrics["bytes.total"] = float(state.total_bytes)
        metrics["bytes.plain"] = float(2 * plan.plain_bytes * len(step.clients))
        if plan.epsilon:
            metrics["privacy.epsilon"] = plan.epsilon(number)
        if CLIP in state.memory:
            metrics["privacy.clip"] = float(state.memory[CLIP])
        if number % plan.eval_every == 0 or number == plan.num_rounds:
            metrics |= _evaluate(state, plan, clients, evaluate, exchange)
        metrics["time.round_seconds"] = time.perf_counter() - began
        watch.record(state, RoundReport(round=number, metrics=metrics, clients=step.clients))


def _evaluate(
    state: GlobalState, plan: Plan, clients: Clients, evaluate: Evaluator, exchange: Exchange
) -> dict[str, float]:
    """Evaluate the global state and, where they differ, what each tier would receive of it."""
    metrics = evaluate(state.vector, exchange)
    turns = Turns(clients, state, state.round + 1)
    if len(clients.tiers) > 1:
        for tier in range(len(clients.tiers)):
            found = evaluate(turns.start(tier).received, exchange)
            metrics |= {f"{name}.tier{tier}": value for name, value in found.items()}
    elif plan.evaluates_download:
        found = evaluate(turns.start(0).received, exchange)
        metrics |= {
            name.replace("validation.", "download.", 1): value for name, value in found.items()
        }
    return metrics


def _round_metrics(step: Step, seconds: float) -> dict[str, float]:
    usable = [report for report in step.clients if report.failure is None]
    num_examples = sum(report.num_examples for report in usable)

    def mean(name: str) -> float:
        values = (r.metrics.get(name, 0.0) * r.num_examples for r in usable)
        return math.fsum(values) / num_examples

    names = dict.fromkeys(name for report in usable for name in report.metrics)
    found = {} if step.drift is None else {"update.drift": step.drift}
    if num_examples:  # Poisson sampling may draw nobody, or no group of anybody
        found |= {f"train.{name}": mean(name) for name in names}
        found["update.norm_mean"] = math.fsum(r.update_norm for r in usable) / len(usable)
    return found | {
        "bytes.download": float(sum(report.download_bytes for report in step.clients)),
        "bytes.upload": float(sum(report.upload_bytes for report in step.clients)),
        "time.train_seconds": seconds - step.exchange_seconds,
        "time.exchange_seconds": step.exchange_seconds,
    }
