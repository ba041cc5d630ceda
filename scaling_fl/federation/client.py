"""One client's turn in a round: download, local training, update."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling_fl.core.exact_sum import LIMIT, is_summable
from scaling_fl.core.records import ClientReport
from scaling_fl.core.seeding import derive, numpy_generator
from scaling_fl.federation.link import Download, Link, Update
from scaling_fl.learning.task import Batch, Examples
from scaling_fl.learning.training.batches import epoch_batches
from scaling_fl.learning.training.local import LocalTrainer, TrainingResult
from scaling_fl.methods.sampling import poisson_groups, sample_groups

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


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The units inside every client that privacy protects one by one, and their part in a round.

    ``examples[client]`` lists the groups of a client. In a round it draws ``per_round`` of them,
    or with ``poisson`` each by itself so that so many are expected, trains on each from what it
    received, and sends the sum of their updates, each bounded by ``bound(update, clip)``, which
    says whether it left the update alone.
    """

    examples: Sequence[Sequence[NDArray[np.int64]]]
    per_round: int
    poisson: bool
    seed: int
    bound: Callable[[Tensor, float], bool]


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
    ) -> None:
        self._trainer, self._examples, self._parts = trainer, examples, parts
        self._seed, self._groups = seed, groups
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

    def download(
        self, state: Tensor, round_number: int, tier: int = 0, *, mask_by: Tensor | None = None
    ) -> Download:
        """Send the global vector down to a tier, whose clients all receive the same."""
        return self.tiers[tier].link.download(state, round_number, mask_by=mask_by)

    def train(
        self,
        start: Download,
        client: int,
        *,
        round_number: int,
        learning_rate: float,
        residual: Tensor | None = None,
        clip: float = math.inf,
        progress: ClientProgress | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> tuple[Update, ClientReport]:
        """Train one client from what it received; returns its update as it arrives, and a report.

        The update's vector is the trainer's own buffer: use it before the next client trains.
        ``residual`` is what error feedback left of the client's last update, ``clip`` bounds its
        groups' updates, if there are groups. ``check`` is called before every step and may raise
        to abandon the round.
        """
        began = time.perf_counter()
        turn = _Turn(round_number, client, learning_rate, progress, check)
        tier = self.tier_of[client]
        link, vector = self.tiers[tier].link, self._trainer.vector
        if self._groups is None:
            result = self._learn(start, turn, self._parts[client])
            update = link.upload(vector, start, round_number, residual)
        else:
            result, num_parts, num_within = self._learn_by_group(start, turn, clip)
            update = link.upload_update(vector, start, round_number)
            update = replace(update, num_parts=num_parts, num_within=num_within)
        norm = float(torch.linalg.vector_norm(update.vector))
        report = ClientReport(
            round=round_number,
            client=client,
            tier=tier,
            num_examples=result.num_seen if self._groups else self.num_examples(client),
            metrics=result.metrics,
            update_norm=norm,
            download_bytes=start.num_bytes,
            upload_bytes=update.num_bytes,
            seconds=time.perf_counter() - began,
            failure=_failure(result, update.vector, norm),
        )
        return update, report

    def _learn(
        self, start: Download, turn: "_Turn", examples: NDArray[np.int64], *group: int
    ) -> TrainingResult:
        """Train on some examples; the trainer's vector then holds the result."""
        number, client = turn.round_number, turn.client
        num_steps = self.tiers[self.tier_of[client]].work.total_steps(len(examples))

        def progress(step: int, loss: float) -> None:
            if turn.progress:
                turn.progress(number, client, step, num_steps, loss)

        result = self._trainer.train(
            start.received,
            self._batches(turn, examples, *group),
            learning_rate=turn.learning_rate,
            seed=derive(self._seed, "dropout", number, client, *group),
            trainable=start.own,
            progress=progress if turn.progress else None,
        )
        progress(num_steps, result.loss)
        return result

    def _learn_by_group(
        self, start: Download, turn: "_Turn", clip: float
    ) -> tuple[TrainingResult, int, int]:
        """Train on a draw of the client's groups; the trainer's vector then holds the updates' sum.

        Each group starts from what the client received. Their sum is rounded once, to fp32, which
        the bound leaves room for, so that one group moves it by no more than ``clip``. For the same
        reason a group that diverges is left out alone, unless all of them do.
        """
        assert self._groups
        groups = self._groups.examples[turn.client]
        draw = poisson_groups if self._groups.poisson else sample_groups
        drawn = draw(
            len(groups),
            self._groups.per_round,
            seed=self._groups.seed,
            round_number=turn.round_number,
            client=turn.client,
        )
        bound = clip * (1.0 - len(groups) * 2.0**-22)
        total = torch.zeros_like(start.received, dtype=torch.float64)
        results, num_within = [], 0
        for group in drawn:
            result = self._learn(start, turn, groups[group], group)
            update = self._trainer.vector.sub_(start.received)
            if math.isfinite(result.loss) and torch.isfinite(update).all():
                results.append(result)
                num_within += self._groups.bound(update, bound)
                total += update
        self._trainer.vector.copy_(total)
        if drawn and not results:
            self._trainer.vector.fill_(math.nan)
        return TrainingResult.over(results), len(drawn), num_within

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


def _failure(result: TrainingResult, update: Tensor, norm: float) -> str | None:
    if not math.isfinite(result.loss):
        return f"its loss is {result.loss}"
    # No coordinate is larger than the norm, so a small norm saves a pass over the vector.
    if not norm < LIMIT / 2 and not is_summable(update):
        return f"its update is not finite or has a coordinate beyond {LIMIT:g}"
    return None
