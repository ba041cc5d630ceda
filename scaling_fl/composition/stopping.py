"""Configuration -> the rules that end a run before its last round.

Epsilon and, as nobody's draw matters to them, bytes are known before a round. So the rules about
them end the run in time, and ``predict`` knows where. The others are met when they are met.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from scaling_fl.composition.budget import Budget
from scaling_fl.composition.data import Data
from scaling_fl.config import Config
from scaling_fl.core.errors import InputError
from scaling_fl.core.exchange import Exchange
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.client import Clients
from scaling_fl.federation.rounds import Rounds
from scaling_fl.federation.stopping import (
    SECONDS,
    Limit,
    Rule,
    Stopping,
    keep_to_bytes,
    keep_to_rounds,
    keep_to_seconds,
    reach,
    wait_for_gain,
)
from scaling_fl.learning.task import Batch, Examples
from scaling_fl.learning.training.local import LocalTrainer

UNFORESEEN = ("target", "patience", "seconds")
"""The settings of ``stop_when`` whose round nobody can know before."""


def make_stopping(
    config: Config,
    clients: Clients,
    rounds: Rounds,
    budget: Budget | None,
    state: GlobalState,
    exchange: Exchange,
) -> Stopping:
    """Make the rules in the order in which they are asked.

    Raises:
        InputError: not even the first round is within the budget of bytes.
    """

    def next_bytes(state: GlobalState) -> int:
        # Secret draws need the digest of a round that is not recorded yet, but cost the same.
        return clients.num_bytes(rounds.cohort(state.round + 1, ""), state)

    if config.stop_when.bytes is not None and state.round == 0:
        check_first_round(config.stop_when.bytes, next_bytes(state))
    return Stopping(
        exchange,
        _rules(config, budget),
        metric=config.stop_when.metric or "",
        is_due=lambda number: config.stop_when.is_of_training or number % config.eval_every == 0,
        next_bytes=next_bytes,
        limits=_limits(config, budget),
    )


def check_metric(config: Config, trainer: LocalTrainer, data: Data) -> None:
    """Ask the task for its metrics of a first batch, by the model as it begins.

    Raises:
        InputError: the metric that rules are about is none of them.
    """
    wanted = config.stop_when.metric
    if wanted is None:
        return
    kind, names = wanted.partition(".")[0], _metrics_of_task(config, trainer, data)
    found = [f"{kind}.{name}" for name in names]
    if wanted not in found:
        raise InputError(
            f"stop_when.metric must be one that the task reports ({', '.join(found)}), got "
            f"{wanted}; take one of them, or drop stop_when.metric."
        )


def _metrics_of_task(config: Config, trainer: LocalTrainer, data: Data) -> list[str]:
    model, device = trainer.model, trainer.vector.device
    model.eval()  # without dropout, nothing is drawn
    with torch.inference_mode():
        if config.stop_when.is_of_training:
            size, elsewhere = config.batch_size, data.is_elsewhere
            batch = _first_batch(data, data.train, size, is_elsewhere=elsewhere).to(device)
            return ["loss", *trainer.loss(model, batch).sums]
        return [
            f"{each.name}.{name}".removeprefix(".")
            for each in data.measured
            for size in [min(config.val_batch_size, each.most_at_once)]
            for elsewhere in [data.tests_are_elsewhere and each.examples is data.test]
            for batch in [_first_batch(data, each.examples, size, is_elsewhere=elsewhere)]
            for name in each.metrics(each.count(model, batch.to(device)), False)
        ]


def _first_batch(data: Data, examples: Examples, size: int, *, is_elsewhere: bool) -> Batch:
    """Return a batch of examples; where they are on other machines, one that is made up."""
    if is_elsewhere:
        return data.task.largest_batch(1)
    return examples.batch(np.arange(min(size, len(examples))))


def _limits(config: Config, budget: Budget | None) -> dict[str, Limit]:
    """Return the limits by setting; of bytes, only where they are told."""
    (path, epsilon), when = config.epsilon_limit, config.stop_when
    num_bytes = when.bytes if budget is None or budget.disclosure.of_bytes else None
    rows = [
        (path, "privacy.epsilon", epsilon),
        ("stop_when.bytes", "bytes.total", num_bytes),
        ("stop_when.seconds", SECONDS, when.seconds),
    ]
    return {_named(path, most): Limit(metric, most) for path, metric, most in rows if most}


def _rules(config: Config, budget: Budget | None) -> dict[str, Rule]:
    when, metric = config.stop_when, config.stop_when.metric or ""
    limit, epsilon = config.epsilon_limit
    rows: list[tuple[str, Any, Callable[[Any], Rule]]] = [
        ("stop_when.target", when.target, lambda v: reach(metric, v, is_loss=when.is_of_loss)),
        (
            "stop_when.patience",
            when.patience,
            lambda v: wait_for_gain(metric, v, when.min_gain, is_loss=when.is_of_loss),
        ),
        (limit, epsilon, lambda v: _keep_to_epsilon(budget)),
        ("stop_when.bytes", when.bytes, keep_to_bytes),
        ("stop_when.seconds", when.seconds, keep_to_seconds),
    ]
    return {_named(path, value): make(value) for path, value, make in rows if value is not None}


def _keep_to_epsilon(budget: Budget | None) -> Rule:
    assert budget  # because without noise epsilon is no rule
    assert budget.epsilon
    return keep_to_rounds(budget.num_rounds, budget.epsilon)


def _named(path: str, value: float) -> str:
    return f"{path}={value:.15g}"


def check_first_round(most: int, first: int) -> None:
    """Raise InputError when the first round alone takes more than so many bytes."""
    if first > most:
        raise InputError(
            f"stop_when.bytes must be at least {first}, the bytes of the first round, got {most}; "
            "raise it, or have less sent."
        )


def foresee(
    config: Config, budget: Budget | None, bytes_of_rounds: Sequence[int]
) -> tuple[int, str | None]:
    """Return the last round within the budgets of epsilon and bytes, and the rule that ends there.

    ``bytes_of_rounds`` are those of every round up to num_rounds. None: num_rounds ends the run.

    Raises:
        InputError: not even the first round is within the budget of bytes.
    """
    last, by = config.num_rounds, None
    (path, epsilon), most = config.epsilon_limit, config.stop_when.bytes
    if budget and epsilon is not None and budget.num_rounds < last:
        last, by = budget.num_rounds, _named(path, epsilon)
    if most is not None:
        check_first_round(most, bytes_of_rounds[0])
        within = sum(total <= most for total in accumulate(bytes_of_rounds))
        if within < last:
            last, by = within, _named("stop_when.bytes", most)
    return last, by


def unforeseen(config: Config) -> list[str]:
    """List the rules that may end the run earlier than ``foresee`` says."""
    values = [(f"stop_when.{name}", getattr(config.stop_when, name)) for name in UNFORESEEN]
    return [_named(path, value) for path, value in values if value is not None]
