"""The time of a run before it runs, from a few measured steps of the federation itself.

One worker is measured, and it records into a local folder. So what workers take from each other
(memory, the network) and what a remote store takes is not in it.
"""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from scaling_fl.composition.federation import Federation, build, choose_device
from scaling_fl.config import Config
from scaling_fl.core.exchange import SingleExchange
from scaling_fl.core.records import RoundReport
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.client import Clients
from scaling_fl.federation.placement import deal
from scaling_fl.federation.rounds import Rounds
from scaling_fl.runtime.tracking.places import JobPlaces

STEPS = (3, 50)
"""The fewest and the most training steps that are measured, beside the first of a client."""
STEP_SECONDS = 0.5
"""How long steps are measured, as far as ``STEPS`` allows."""
SAVE_EVERY = 2
"""How often the measured federation saves: a round with a checkpoint, and one without."""


@dataclass(frozen=True, kw_only=True)
class PlannedTime:
    """The measured parts of a run, and what they add up to, in seconds."""

    start: float
    """Starting a process, reading the data and loading the model, as far as none is cached."""
    step: float
    """One training step."""
    client: float
    """A client's turn, beside its steps: its optimiser, its upload, its part in the merge."""
    merge: float
    """What a round takes beside its clients: downloads, the merge, the server's step, the record.
    """
    save: float
    """A checkpoint."""
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
    num_rounds: Callable[[], int],
    stage: Callable[[str], None],
) -> PlannedTime:
    """Build the federation as a worker does, measure a few of its steps, and predict the rounds.

    ``sites`` has the worker of every site, and ``began`` is when this process began, by
    ``time.perf_counter``. ``num_rounds`` is asked for the rounds of the run when its start has been
    measured. What is recorded on the way is thrown away.

    Raises:
        UserError: the run itself would refuse these settings or their data.
    """
    torch.set_num_threads(num_threads)
    with tempfile.TemporaryDirectory(prefix="scaling_fl-") as folder:
        journal = str(Path(folder) / "journal.jsonl")
        federation = build(
            config.model_copy(update={"save_every": SAVE_EVERY}),
            SingleExchange(len(sites)),
            choose_device(config.device, device_id),
            JobPlaces(checkpoints=folder, journal=journal),
            note=lambda text: None,
            stage=stage,
        )
        start = time.perf_counter() - began
        stage("measuring a few training steps, a merge and an evaluation")
        rounds = replace(federation.rounds, num_rounds=num_rounds())
        return _measure(config, federation, rounds, sites, start)


def _measure(
    config: Config, federation: Federation, rounds: Rounds, sites: Sequence[int], start: float
) -> PlannedTime:
    work = [federation.clients.total_steps(client) for client in range(rounds.num_clients)]
    longest, *others = sorted(range(rounds.num_clients), key=lambda number: -work[number])
    _play(federation, [longest], 1)  # what comes for the first time takes longer
    short = _play(federation, [longest], 1)
    long = _play(federation, [longest], 1 + _num_measured(short))
    step = max(0.0, long.training - short.training) / (long.num_steps - short.num_steps)
    merged = _play(federation, [longest, *others[:1]], 1)  # a merge grows with its clients
    beside = max(0.0, merged.merging - short.merging)
    turn = max(0.0, short.training - short.num_steps * step) + beside
    record, save = _recording(federation, merged.state)
    merge = max(0.0, short.merging - beside) + record
    evaluation = _evaluation(federation, merged.state, len(set(sites)))
    seconds = [
        _longest(rounds.cohort(number, ""), work, sites, step=step, turn=turn)
        + merge
        + save * (number % config.save_every == 0 or number == rounds.num_rounds)
        + evaluation * rounds.evaluates(number)
        for number in range(1, rounds.num_rounds + 1)
    ]
    return PlannedTime(
        start=start,
        step=step,
        client=turn,
        merge=merge,
        save=save,
        evaluation=evaluation,
        round=math.fsum(seconds) / len(seconds),
        rounds=math.fsum(seconds),
    )


class _Played(NamedTuple):
    """A round that was played for its time: the seconds of its clients, and of all else."""

    training: float
    merging: float
    num_steps: int
    state: GlobalState


def _play(federation: Federation, cohort: Sequence[int], num_steps: int) -> _Played:
    """Play the first round with a few clients, each of which takes so many steps."""
    clients, server, state = federation.clients, federation.server, federation.state
    rounds = federation.rounds
    _shorten(clients, num_steps)
    began = time.perf_counter()
    downloads = server.downloads(state)
    for tier in range(downloads.num_tiers):
        downloads.received(tier)
    received = time.perf_counter()
    replies = clients.train_each(
        cohort,
        downloads,
        state,
        learning_rate=rounds.learning_rate(1),
        clip=server.clip(state),
    )
    after, step = server.step(state, downloads, rounds.shares(list(cohort)), replies)
    training = time.perf_counter() - received - step.exchange_seconds
    merging = received - began + step.exchange_seconds
    return _Played(training, merging, sum(map(clients.total_steps, cohort)), after)


def _num_measured(short: _Played) -> int:
    """Choose how many steps are measured, from what a few have taken."""
    fewest, most = STEPS
    return round(min(most, max(fewest, STEP_SECONDS * short.num_steps / short.training)))


def _recording(federation: Federation, state: GlobalState) -> tuple[float, float]:
    """Measure what a round's record takes, and what a checkpoint takes beside it."""
    recorder = federation.recorder
    assert recorder

    def record(round_number: int) -> float:
        began = time.perf_counter()
        federation.clients.hold_base(state)
        recorder.record(
            replace(state, round=round_number), RoundReport(round=round_number, metrics={})
        )
        return time.perf_counter() - began

    # Behind the last round, which is saved in any case, every SAVE_EVERY-th is.
    saved = SAVE_EVERY * (federation.rounds.num_rounds + 1)
    unsaved_seconds, saved_seconds = record(saved + 1), record(saved)
    return unsaved_seconds, max(0.0, saved_seconds - unsaved_seconds)


def _shorten(clients: Clients, num_steps: int) -> None:
    """Give every client so many steps in a round; a client that trains on groups, for each."""
    clients.tiers = [
        replace(tier, work=replace(tier.work, num_steps=num_steps)) for tier in clients.tiers
    ]


def _evaluation(federation: Federation, state: GlobalState, workers: int) -> float:
    """Measure a batch of average length of each measurement; return an evaluation by all workers.

    The worker that has most batches decides. All vectors that are evaluated count.
    """
    numbers = federation.evaluator.num_batches
    total, seconds, first = sum(numbers), 0.0, 0
    federation.evaluator(state.vector, _OneBatch(total - 1, total))
    for number in numbers:
        began = time.perf_counter()
        federation.evaluator(state.vector, _OneBatch(first + number // 2, total))
        seconds += (time.perf_counter() - began) * number
        first += number
    num_vectors = 1 + len(federation.clients.tiers) * federation.rounds.evaluates_download
    return seconds / total * math.ceil(total / workers) * num_vectors


def _longest(
    cohort: list[int], work: list[int], sites: Sequence[int], *, step: float, turn: float
) -> float:
    """Return how long the worker trains that trains longest."""
    seconds = [0.0] * len(sites)
    for client, worker in deal(cohort, work, sites).items():
        seconds[worker] += turn + step * work[client]
    return max(seconds)
