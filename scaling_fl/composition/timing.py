"""The time of a run before it runs, from a few measured steps of the federation itself.

One worker is measured, so what workers take from each other (memory, the network) is not in it.
"""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from scaling_fl.composition.federation import Federation, build, choose_device
from scaling_fl.config import Config
from scaling_fl.core.exchange import SingleExchange
from scaling_fl.core.records import RoundReport
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.client import Clients
from scaling_fl.federation.placement import deal
from scaling_fl.runtime.tracking.places import JobPlaces

STEPS = 3
"""The measured training steps, beside the first of a client."""


@dataclass(frozen=True, kw_only=True)
class PlannedTime:
    """The measured parts of a run, and what they add up to, in seconds."""

    start: float
    """Starting a process, reading the data and loading the model, as far as none is cached."""
    step: float
    """One training step."""
    client: float
    """A client's turn, beside its steps: its download, its optimiser, its upload."""
    merge: float
    """Merging, the server's step and a checkpoint."""
    evaluation: float
    """An evaluation by all workers."""
    round: float
    """The mean of all rounds."""
    rounds: float
    """All rounds."""

    def to_json(self) -> dict[str, float]:
        """Return the seconds by what takes them."""
        return {f"{name}_seconds": value for name, value in asdict(self).items()}


class _OneBatch(SingleExchange):
    """Has an evaluator take one of its batches for this worker's."""

    def __init__(self, batch: int, num_batches: int) -> None:
        super().__init__(1)
        self.rank, self.size = batch, num_batches


def measure(
    config: Config,
    sites: Sequence[int],
    *,
    device_id: int,
    num_threads: int,
    began: float,
    stage: Callable[[str], None],
) -> PlannedTime:
    """Build the federation as a worker does, measure a few of its steps, and predict the rounds.

    ``sites`` has the worker of every site, and ``began`` is when this process began, by
    ``time.perf_counter``. What is recorded on the way is thrown away.

    Raises:
        UserError: the run itself would refuse these settings or their data.
    """
    torch.set_num_threads(num_threads)
    with tempfile.TemporaryDirectory(prefix="scaling_fl-") as folder:
        journal = str(Path(folder) / "journal.jsonl")
        federation = build(
            config.model_copy(update={"save_every": 1}),
            SingleExchange(len(sites)),
            choose_device(config.device, device_id),
            JobPlaces(checkpoints=folder, journal=journal),
            note=lambda text: None,
            stage=stage,
        )
        start = time.perf_counter() - began
        stage(f"measuring {STEPS} training steps and an evaluation")
        return _measure(config, federation, federation.state, sites, start)


def _measure(
    config: Config,
    federation: Federation,
    state: GlobalState,
    sites: Sequence[int],
    start: float,
) -> PlannedTime:
    clients, rounds, server = federation.clients, federation.rounds, federation.server
    work = [clients.total_steps(client) for client in range(rounds.num_clients)]
    client = max(range(rounds.num_clients), key=lambda number: work[number])
    downloads = server.downloads(state)

    def train(num_steps: int) -> tuple[float, int, Any]:
        _shorten(clients, num_steps)
        began = time.perf_counter()
        reply = clients.train(
            downloads.received(clients.tier_of[client]),
            client,
            round_number=1,
            learning_rate=rounds.learning_rate(1),
            history=state.digest,
            clip=server.clip(state),
        )
        return time.perf_counter() - began, clients.total_steps(client), reply

    train(1)  # what comes for the first time takes longer
    short, few, _ = train(1)
    long, many, reply = train(1 + STEPS)
    step = max(0.0, long - short) / (many - few)
    turn = max(0.0, short - few * step)
    began = time.perf_counter()
    state, _ = server.step(state, downloads, rounds.shares([client]), [reply])
    if federation.recorder:
        state = federation.recorder.record(state, RoundReport(round=1, metrics={}))
    merge = time.perf_counter() - began
    workers = len(set(sites))
    evaluation = _evaluation(federation, state, workers) * _evaluated(config)
    seconds = [
        _longest(rounds.cohort(number, ""), work, sites, step=step, turn=turn)
        + merge
        + evaluation * rounds.evaluates(number)
        for number in range(1, rounds.num_rounds + 1)
    ]
    return PlannedTime(
        start=start,
        step=step,
        client=turn,
        merge=merge,
        evaluation=evaluation,
        round=math.fsum(seconds) / len(seconds),
        rounds=math.fsum(seconds),
    )


def _shorten(clients: Clients, num_steps: int) -> None:
    """Give every client so many steps in a round; a client that trains on groups, for each."""
    clients.tiers = [
        replace(tier, work=replace(tier.work, num_steps=num_steps)) for tier in clients.tiers
    ]


def _evaluation(federation: Federation, state: GlobalState, workers: int) -> float:
    """Measure a batch of average length; return the time of the worker that has most batches."""
    number = federation.evaluator.num_batches
    federation.evaluator(state.vector, _OneBatch(number - 1, number))
    began = time.perf_counter()
    federation.evaluator(state.vector, _OneBatch(number // 2, number))
    return (time.perf_counter() - began) * math.ceil(number / workers)


def _evaluated(config: Config) -> int:
    """Count the vectors that an evaluation is about."""
    return 1 + (len(config.tiers) or int(config.download.evaluate))


def _longest(
    cohort: list[int], work: list[int], sites: Sequence[int], *, step: float, turn: float
) -> float:
    """Return how long the worker trains that trains longest."""
    seconds = [0.0] * len(sites)
    for client, worker in deal(cohort, work, sites).items():
        seconds[worker] += turn + step * work[client]
    return max(seconds)
