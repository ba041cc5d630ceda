"""One client's turn in a round: received vector -> local training -> reply."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from scaling_fl.core.records import ClientReport
from scaling_fl.core.seeding import derive, numpy_generator
from scaling_fl.core.state import GlobalState, Tensors
from scaling_fl.federation import scaffold
from scaling_fl.federation.arrivals import Reply
from scaling_fl.federation.base import MOVED, send_base
from scaling_fl.federation.client_end import ClientEnd, Received
from scaling_fl.federation.downloads import Downloads
from scaling_fl.federation.groups import Groups
from scaling_fl.federation.link import Link
from scaling_fl.federation.personal import with_own
from scaling_fl.federation.statistics import Statistics
from scaling_fl.federation.work import LocalWork
from scaling_fl.learning.task import Batch, Examples
from scaling_fl.learning.training.local import LocalTrainer, TrainingResult
from scaling_fl.methods.wire.direction import Payload

ClientProgress = Callable[[int, int, int, int, float], None]
"""(round, client, steps done, steps in all, loss)"""


@dataclass(frozen=True, kw_only=True)
class Tier:
    """A class of clients, with the same amount of work and the same link."""

    work: LocalWork
    link: Link
    adapter_scale: float = 1.0
    """The scale of the adapter at these clients, over that of the model."""


class Clients:
    """All clients of the federation, as every worker can run each of them; they have no state."""

    def __init__(
        self,
        trainer: LocalTrainer,
        examples: Examples,
        partitions: Sequence[NDArray[np.int64]],
        *,
        tiers: Sequence[Tier],
        tier_of: Sequence[int],
        seed: int,
        groups: Groups | None = None,
        statistics: Statistics | None = None,
    ) -> None:
        self.trainer, self.examples, self.partitions = trainer, examples, partitions
        self._seed, self.groups = seed, groups
        self.statistics = statistics or Statistics()
        self.tiers, self.tier_of = tiers, tier_of

    def num_examples(self, client: int) -> int:
        return len(self.partitions[client])

    def total_steps(self, client: int) -> int:
        """Count the local steps of a client in a round; with groups, the expected number."""
        work = self.tiers[self.tier_of[client]].work
        if self.groups is None:
            return work.total_steps(self.num_examples(client))
        steps = [work.total_steps(len(group)) for group in self.groups.examples[client]]
        return round(sum(steps) * self.groups.per_round / self.groups.most)

    def num_bytes(self, cohort: Sequence[int], state: GlobalState) -> int:
        """Predict the bytes of the round after ``state``, both ways, all its clients together."""
        number, memory = state.round + 1, state.memory.server
        tiers = Counter(self.tier_of[client] for client in cohort)
        of_links = sum(
            sum(self.tiers[tier].link.num_bytes(number)) * count for tier, count in tiers.items()
        )
        bases = (send_base(memory, client) for client in cohort)
        return of_links + sum(base.num_bytes for base in bases if base)

    def hold_base(self, state: GlobalState) -> None:
        """Give the model the frozen weights of a state, to train and to be evaluated with."""
        self.trainer.base.move_to(state.memory.server.get(MOVED))

    def train_each(
        self,
        mine: Sequence[int],
        downloads: Downloads,
        state: GlobalState,
        *,
        learning_rate: float,
        clip: float,
        shares: Mapping[int, float] | None = None,
        progress: ClientProgress | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[Reply]:
        """Train the clients of this worker one after the other, in the round after ``state``.

        ``shares`` are those of the clients in the mean, which matter where clients weigh their own
        updates.
        """
        for client in mine:
            yield self.train(
                downloads.received_by(client, self.tier_of[client]),
                client,
                round_number=state.round + 1,
                learning_rate=learning_rate,
                memory=state.memory.clients.get(client),
                history=state.digest,
                clip=clip,
                progress=progress,
                check=check,
            )

    def train(
        self,
        received: Received,
        client: int,
        *,
        round_number: int,
        learning_rate: float,
        memory: Tensors | None = None,
        history: str = "",
        clip: float = math.inf,
        progress: ClientProgress | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Reply:
        """Train one client from what it received and return its reply.

        The payload may be in the trainer's buffer, so use the reply before the next client trains.
        ``memory`` is what the client remembers of its last turn, and ``history`` the digest of all
        rounds before. ``clip`` bounds the updates of its groups, if there are groups. ``check`` is
        called before every step and every batch of statistics; it may raise an exception to
        abandon the round.
        """
        began = time.perf_counter()
        memory = memory or {}
        correction = scaffold.correction(received.control, memory)
        turn = _Turn(
            round_number, client, learning_rate, history, clip, progress, check, correction
        )
        tier = self.tier_of[client]
        end = ClientEnd(self.tiers[tier].link)
        own = with_own(received.vector, end.link.personal, memory)
        received = replace(received, vector=own)
        if self.groups is None:
            trained = self._train_whole(received, turn, end, memory)
        else:
            trained = self._train_groups(self.groups, received, turn, end, memory)
        result, sent = trained.result, [trained.payload, *trained.extras.values()]
        report = ClientReport(
            round=round_number,
            client=client,
            tier=tier,
            num_examples=self.num_examples(client) if self.groups is None else result.num_seen,
            metrics=result.metrics,
            download_bytes=received.num_bytes,
            upload_bytes=sum(payload.num_bytes for payload in sent),
            seconds=time.perf_counter() - began,
        )
        return Reply(
            report=report,
            payload=trained.payload,
            extras=trained.extras,
            memory=trained.memory,
            num_units=trained.num_units,
            num_unclipped=trained.num_unclipped,
        )

    def _train_whole(
        self, received: Received, turn: "_Turn", end: ClientEnd, memory: Tensors
    ) -> "_Trained":
        """Train a client that has no groups."""
        vector = self.trainer.vector
        result = self._learn(received, turn, self.partitions[turn.client])
        distance = result.num_steps * turn.learning_rate
        extras, control = end.send_control(vector, received, distance, memory)
        extras |= self.statistics.send(
            self.trainer,
            self.examples,
            self.partitions[turn.client],
            batch_size=self.tiers[self.tier_of[turn.client]].work.batch_size,
            round_number=turn.round_number,
            client=turn.client,
            check=turn.check,
        )
        payload, remembered = end.send_trained(vector, received, turn.round_number, memory)
        return _Trained(result, payload, extras, {**remembered, **control})

    def _train_groups(
        self, groups: Groups, received: Received, turn: "_Turn", end: ClientEnd, memory: Tensors
    ) -> "_Trained":
        """Train a client on a sample of its groups."""
        vector = self.trainer.vector
        result, num_units, num_unclipped = groups.train(
            turn.client,
            turn.round_number,
            turn.history,
            received=received.vector,
            trained=vector,
            clip=turn.clip,
            learn=lambda examples, group: self._learn(received, turn, examples, group),
        )
        payload, remembered = end.send(vector, received, turn.round_number, memory)
        return _Trained(result, payload, {}, remembered, num_units, num_unclipped)

    def _learn(
        self, received: Received, turn: "_Turn", examples: NDArray[np.int64], *group: int
    ) -> TrainingResult:
        """Train on some examples; the result is in the trainer's vector."""
        number, client = turn.round_number, turn.client
        tier = self.tiers[self.tier_of[client]]
        num_steps = tier.work.total_steps(len(examples))

        def progress(step: int, loss: float) -> None:
            if turn.progress:
                turn.progress(number, client, step, num_steps, loss)

        result = self.trainer.train(
            received.vector,
            self._batches(turn, examples, *group),
            learning_rate=turn.learning_rate,
            seed=derive(self._seed, "dropout", number, client, *group),
            trainable=received.trainable,
            correction=turn.correction,
            adapter_scale=tier.adapter_scale,
            progress=progress if turn.progress else None,
        )
        progress(num_steps, result.loss)
        return result

    def _batches(self, turn: "_Turn", examples: NDArray[np.int64], *group: int) -> Iterator[Batch]:
        for indices in self._order(turn.client, turn.round_number, examples, *group):
            turn.check()
            yield self.examples.batch(indices)

    def _order(
        self, client: int, round_number: int, examples: NDArray[np.int64], *group: int
    ) -> Iterator[NDArray[np.int64]]:
        """Yield the examples of each batch; every epoch of every round has another order.

        Where the order is fixed, that of round 1 is every round's.
        """
        work = self.tiers[self.tier_of[client]].work
        number = 1 if work.is_fixed else round_number
        remaining = work.num_batches(len(examples))
        epoch = 0
        while remaining > 0:
            rng = numpy_generator(self._seed, "order", number, client, epoch, *group)
            batches = work.epoch(self.examples.lengths, examples, rng)
            yield from batches[:remaining]
            remaining -= len(batches)
            epoch += 1


class _Turn(NamedTuple):
    """The arguments of one client's training in one round."""

    round_number: int
    client: int
    learning_rate: float
    history: str
    clip: float
    progress: ClientProgress | None
    check: Callable[[], None]
    correction: Tensor | None


class _Trained(NamedTuple):
    """What follows from a client's training; the fields are those of ``Reply``."""

    result: TrainingResult
    payload: Payload
    extras: Mapping[str, Payload]
    memory: Tensors
    num_units: int = 1
    num_unclipped: int = 0
