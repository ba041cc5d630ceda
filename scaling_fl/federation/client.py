"""One client's turn in a round: what it received -> local training -> its reply."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling_fl.core.records import ClientReport
from scaling_fl.core.seeding import derive, numpy_generator
from scaling_fl.core.state import GlobalState, Tensors
from scaling_fl.federation.arrivals import Reply
from scaling_fl.federation.client_end import ClientEnd, Received
from scaling_fl.federation.delivery import Delivery
from scaling_fl.federation.groups import Groups
from scaling_fl.federation.link import Link
from scaling_fl.learning.task import Batch, Examples, Statistic
from scaling_fl.learning.training.batches import epoch_batches
from scaling_fl.learning.training.local import LocalTrainer, TrainingResult
from scaling_fl.methods.wire.direction import PLAIN, Payload

ClientProgress = Callable[[int, int, int, int, float], None]
"""(round, client, steps done, steps in all, loss)"""


@dataclass(frozen=True, kw_only=True)
class LocalWork:
    """How much a client does in a round: epochs over its examples, or a fixed number of steps."""

    batch_size: int
    num_epochs: int | None
    num_steps: int | None
    length_grouped: bool = False

    def total_steps(self, num_examples: int) -> int:
        if self.num_steps is not None:
            return self.num_steps
        return (self.num_epochs or 0) * math.ceil(num_examples / self.batch_size)


@dataclass(frozen=True, kw_only=True)
class Tier:
    """A class of clients: what they are sent and send, and how much they do."""

    work: LocalWork
    link: Link


class Clients:
    """All clients that this worker may be asked to run; none of them has any state."""

    def __init__(
        self,
        trainer: LocalTrainer,
        examples: Examples,
        parts: Sequence[NDArray[np.int64]],
        *,
        tiers: Sequence[Tier],
        tier_of: Sequence[int],
        seed: int,
        groups: Groups | None = None,
        statistics: Mapping[str, Statistic] | None = None,
    ) -> None:
        self._trainer, self._examples, self._parts = trainer, examples, parts
        self._seed, self._groups = seed, groups
        self._statistics = statistics or {}
        self.tiers, self.tier_of = tiers, tier_of

    def num_examples(self, client: int) -> int:
        return len(self._parts[client])

    def total_steps(self, client: int) -> int:
        """Count the steps of a client in a round, in the mean over its possible groups."""
        work = self.tiers[self.tier_of[client]].work
        if self._groups is None:
            return work.total_steps(self.num_examples(client))
        steps = [work.total_steps(len(group)) for group in self._groups.examples[client]]
        return round(sum(steps) * self._groups.per_round / len(steps))

    def train_each(
        self,
        chosen: Sequence[int],
        delivery: Delivery,
        state: GlobalState,
        *,
        learning_rate: float,
        clip: float,
        progress: ClientProgress | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[Reply]:
        """Train some clients, one after the other, in the round after ``state``; see ``train``."""
        for client in chosen:
            yield self.train(
                delivery.received(self.tier_of[client]),
                client,
                round_number=state.round + 1,
                learning_rate=learning_rate,
                memory=state.memory.clients.get(client),
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
        clip: float = math.inf,
        progress: ClientProgress | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Reply:
        """Train one client from what it received.

        The reply may hold the trainer's own buffer: use it before the next client trains.
        ``memory`` is what the client remembers of its last turn, ``clip`` bounds the updates of
        its groups, if there are groups. ``check`` is called before every step and may raise to
        abandon the round.
        """
        began = time.perf_counter()
        turn = _Turn(round_number, client, learning_rate, progress, check)
        tier = self.tier_of[client]
        end, vector = ClientEnd(self.tiers[tier].link), self._trainer.vector
        num_units, num_within = 1, 0
        extras: dict[str, Payload] = {}
        if self._groups is None:
            result = self._learn(received, turn, self._parts[client])
            extras = self._compute_statistics(client)
            payload, kept = end.send_trained(vector, received, round_number, memory or {})
        else:
            result, num_units, num_within = self._groups.train(
                client,
                round_number,
                received=received.vector,
                trained=vector,
                clip=clip,
                learn=lambda examples, group: self._learn(received, turn, examples, group),
            )
            payload, kept = end.send(vector, received, round_number, memory or {})
        report = ClientReport(
            round=round_number,
            client=client,
            tier=tier,
            num_examples=self.num_examples(client) if self._groups is None else result.num_seen,
            metrics=result.metrics,
            download_bytes=received.num_bytes,
            upload_bytes=payload.num_bytes + sum(extra.num_bytes for extra in extras.values()),
            seconds=time.perf_counter() - began,
        )
        return Reply(
            report=report,
            payload=payload,
            extras=extras,
            memory=kept,
            num_units=num_units,
            num_within_clip=num_within,
        )

    def _learn(
        self, received: Received, turn: "_Turn", examples: NDArray[np.int64], *group: int
    ) -> TrainingResult:
        """Train on some examples; the trainer's vector then holds the result."""
        number, client = turn.round_number, turn.client
        num_steps = self.tiers[self.tier_of[client]].work.total_steps(len(examples))

        def progress(step: int, loss: float) -> None:
            if turn.progress:
                turn.progress(number, client, step, num_steps, loss)

        result = self._trainer.train(
            received.vector,
            self._batches(turn, examples, *group),
            learning_rate=turn.learning_rate,
            seed=derive(self._seed, "dropout", number, client, *group),
            trainable=received.trainable,
            progress=progress if turn.progress else None,
        )
        progress(num_steps, result.loss)
        return result

    def _compute_statistics(self, client: int) -> dict[str, Payload]:
        """Compute what the merge needs of the trained model and the client's examples."""
        examples, size = self._parts[client], self.tiers[self.tier_of[client]].work.batch_size
        cuts = range(0, len(examples), size)
        return {
            name: PLAIN.send(
                compute(
                    self._trainer.model,
                    self._trainer.loss,
                    (self._examples.batch(examples[start : start + size]) for start in cuts),
                ),
                self._trainer.layout.size,
            )
            for name, compute in self._statistics.items()
        }

    def _batches(self, turn: "_Turn", examples: NDArray[np.int64], *group: int) -> Iterator[Batch]:
        for indices in self._order(turn.client, turn.round_number, examples, *group):
            turn.check()
            yield self._examples.batch(indices)

    def _order(
        self, client: int, round_number: int, examples: NDArray[np.int64], *group: int
    ) -> Iterator[NDArray[np.int64]]:
        """Yield the examples of each step; every epoch of every round has an order of its own."""
        work = self.tiers[self.tier_of[client]].work
        remaining = work.total_steps(len(examples))
        epoch = 0
        while remaining > 0:
            batches = epoch_batches(
                self._examples.lengths,
                examples,
                batch_size=work.batch_size,
                rng=numpy_generator(self._seed, "order", round_number, client, epoch, *group),
                length_grouped=work.length_grouped,
            )
            yield from batches[:remaining]
            remaining -= len(batches)
            epoch += 1


class _Turn(NamedTuple):
    """What one client's training in one round is asked to do."""

    round_number: int
    client: int
    learning_rate: float
    progress: ClientProgress | None
    check: Callable[[], None]
