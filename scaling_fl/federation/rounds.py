"""The loop: sample, send, train, merge, step, evaluate, record."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from scaling_fl.core.exchange import Exchange
from scaling_fl.core.records import RoundReport
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.client import ClientProgress, Clients
from scaling_fl.federation.disclosure import Disclosure
from scaling_fl.federation.evaluator import EVALUATION_BYTES, MISSING, Evaluator
from scaling_fl.federation.placement import deal
from scaling_fl.federation.privacy import CLIP
from scaling_fl.federation.server import Server, Step
from scaling_fl.federation.stopping import SECONDS, Stopping
from scaling_fl.methods.sampling import SampleCohort


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """What is known of all rounds before the first one: functions of the round.

    Who is drawn in secret follows from the digest of the rounds before, too.
    """

    num_rounds: int
    num_clients: int
    cohort: SampleCohort
    shares: Callable[[list[int]], dict[int, float]]
    learning_rate: Callable[[int], float]
    eval_every: int
    epsilon: Callable[[int], float] | None = None
    """Number of rounds -> the epsilon spent; None without noise."""
    plain_bytes: int = 0
    """The length of a payload without codec and masks."""
    evaluates_download: bool = False
    """Whether what each tier receives is evaluated, too."""
    disclosure: Disclosure = field(default_factory=Disclosure)
    """What is told of a round."""

    def evaluates(self, round_number: int) -> bool:
        return round_number % self.eval_every == 0 or round_number == self.num_rounds


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop calls beside the rounds: to record, to show progress, and to ask for a stop."""

    record: Callable[[GlobalState, RoundReport], GlobalState]
    """Records a finished round; returns the state with the digest of all rounds so far."""
    progress: ClientProgress
    check: Callable[[], None]
    """Raises an exception to abandon the round; called before every local step."""


def run_rounds(
    state: GlobalState,
    rounds: Rounds,
    *,
    clients: Clients,
    server: Server,
    evaluate: Evaluator,
    exchange: Exchange,
    stopping: Stopping,
    hooks: Hooks,
) -> GlobalState:
    """Run the rounds after ``state`` and return the last state; all workers call it together.

    Source: arXiv 1602.05629, algorithm 1.
    """
    work = [clients.total_steps(client) for client in range(rounds.num_clients)]

    def mine(cohort: list[int]) -> list[int]:
        worker_of = deal(cohort, work, exchange.sites)
        return [client for client in cohort if worker_of[client] == exchange.rank]

    def evaluated(state: GlobalState) -> dict[str, float]:
        return _evaluate(state, rounds, server, evaluate, exchange, hooks.check)

    clients.hold_base(state)
    for number in range(state.round + 1, rounds.num_rounds + 1):
        began = time.perf_counter()
        if rounds.epsilon:
            state = _with_shared_digest(state, exchange)
        cohort = rounds.cohort(number, state.digest)
        downloads, shares = server.downloads(state), rounds.shares(cohort)
        replies = clients.train_each(
            mine(cohort),
            downloads,
            state,
            shares=shares,
            learning_rate=rounds.learning_rate(number),
            clip=server.clip(state),
            progress=hooks.progress if rounds.disclosure.of_clients else None,
            check=hooks.check,
        )
        state, step = server.step(state, downloads, shares, replies)
        clients.hold_base(state)
        del downloads, replies  # with them, the memory of the state before
        if not rounds.disclosure.of_bytes:
            state = replace(state, total_bytes=0)
        metrics = _round_metrics(state, step, rounds, time.perf_counter() - began)
        is_evaluated = rounds.evaluates(number)
        metrics |= evaluated(state) if is_evaluated else {}
        metrics[SECONDS] = time.perf_counter() - began
        stopped_by = stopping.after(state, metrics) if number < rounds.num_rounds else ""
        if stopped_by and not is_evaluated:
            metrics |= evaluated(state)
            metrics[SECONDS] = time.perf_counter() - began
        state = hooks.record(state, _report(step, rounds, number, metrics, stopped_by))
        if stopped_by:
            break
    return state


def _with_shared_digest(state: GlobalState, exchange: Exchange) -> GlobalState:
    """Give every worker the digest of all rounds so far, which only worker 0 has."""
    (mine,) = exchange.gather([{"digest": state.digest}] if exchange.rank == 0 else [])
    return replace(state, digest=mine["digest"])


def _evaluate(
    state: GlobalState,
    rounds: Rounds,
    server: Server,
    evaluate: Evaluator,
    exchange: Exchange,
    check: Callable[[], None],
) -> dict[str, float]:
    """Evaluate the global vector and, if it is asked for, what each tier would receive.

    Where clients keep a part of the model, each answers its own test examples, by its own part.
    """
    memories = state.memory.clients
    metrics = evaluate(state.vector, exchange, memories, check)
    downloads = server.downloads(state)
    if MISSING in metrics:
        return metrics
    for tier in range(downloads.num_tiers * rounds.evaluates_download):
        found = evaluate(downloads.received(tier).vector, exchange, memories, check)
        if MISSING in found:
            return found
        if EVALUATION_BYTES in found:
            metrics[EVALUATION_BYTES] += found.pop(EVALUATION_BYTES)
        for name, value in found.items():
            of_all = name.replace("validation.", "download.", 1)
            metrics[f"{name}.tier{tier}" if downloads.num_tiers > 1 else of_all] = value
    return metrics


def _report(
    step: Step, rounds: Rounds, number: int, metrics: dict[str, float], stopped_by: str
) -> RoundReport:
    return RoundReport(
        round=number,
        metrics=metrics,
        clients=step.clients if rounds.disclosure.of_clients else [],
        unmoved=step.unmoved,
        stopped_by=stopped_by,
    )


def _round_metrics(
    state: GlobalState, step: Step, rounds: Rounds, seconds: float
) -> dict[str, float]:
    metrics = dict(step.metrics)
    if rounds.disclosure.of_clients:
        metrics |= _training_metrics(step)
    if rounds.disclosure.of_bytes:
        metrics |= {
            "bytes.download": float(sum(report.download_bytes for report in step.clients)),
            "bytes.upload": float(sum(report.upload_bytes for report in step.clients)),
            "bytes.total": float(state.total_bytes),
            "bytes.plain": float(2 * rounds.plain_bytes * len(step.clients)),
        }
    metrics |= {
        "time.train_seconds": seconds - step.exchange_seconds,
        "time.exchange_seconds": step.exchange_seconds,
    }
    if rounds.epsilon:
        metrics["privacy.epsilon"] = rounds.epsilon(state.round)
    if CLIP in state.memory.server:
        metrics["privacy.clip"] = float(state.memory.server[CLIP])
    return metrics


def _training_metrics(step: Step) -> dict[str, float]:
    usable = [report for report in step.clients if report.failure is None]
    num_examples = sum(report.num_examples for report in usable)
    if not num_examples:  # Poisson sampling may draw no client, or no group of the clients
        return {}

    def mean(name: str) -> float:
        values = (r.metrics.get(name, 0.0) * r.num_examples for r in usable)
        return math.fsum(values) / num_examples

    names = dict.fromkeys(name for report in usable for name in report.metrics)
    found = {f"train.{name}": mean(name) for name in names}
    norm = math.fsum(r.update_norm for r in usable) / len(usable)
    # Where the server sees no single update, there is none.
    return found if math.isnan(norm) else found | {"update.norm_mean": norm}
