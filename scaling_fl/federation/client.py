"""One client's turn in a round: download, local training, update."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling_fl.core.exact_sum import LIMIT, is_summable
from scaling_fl.core.records import ClientReport
from scaling_fl.core.seeding import derive, numpy_generator
from scaling_fl.federation.link import Download, Link
from scaling_fl.learning.batches import Batch, collate, epoch_batches
from scaling_fl.learning.local_training import LocalTrainer, TrainingResult
from scaling_fl.learning.tokenised import TokenisedExamples

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


class Clients:
    """All clients that this worker may be asked to run; none of them has any state."""

    def __init__(
        self,
        trainer: LocalTrainer,
        examples: TokenisedExamples,
        parts: Sequence[NDArray[np.int64]],
        *,
        work: LocalWork,
        pad_token_id: int,
        seed: int,
        link: Link | None = None,
    ) -> None:
        self._trainer, self._examples, self._parts = trainer, examples, parts
        self._work, self._pad_token_id, self._seed = work, pad_token_id, seed
        self._link = link or Link()

    def num_examples(self, client: int) -> int:
        return len(self._parts[client])

    def total_steps(self, client: int) -> int:
        return self._work.total_steps(self.num_examples(client))

    def download(self, state: Tensor, round_number: int) -> Download:
        """Send the global vector down once; all clients of the round receive the same."""
        return self._link.download(state, round_number)

    def train(
        self,
        start: Download,
        client: int,
        *,
        round_number: int,
        learning_rate: float,
        progress: ClientProgress | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> tuple[Tensor, ClientReport]:
        """Train one client from what it received; returns its update as it arrives, and a report.

        The update (trained minus received) is the trainer's own buffer: use it before the next
        client trains. ``check`` is called before every step and may raise to abandon the round.
        """
        began = time.perf_counter()
        num_steps = self.total_steps(client)
        result = self._trainer.train(
            start.received,
            self._batches(client, round_number, check),
            learning_rate=learning_rate,
            seed=derive(self._seed, "dropout", round_number, client),
            progress=(lambda step, loss: progress(round_number, client, step, num_steps, loss))
            if progress
            else None,
        )
        if progress:
            progress(round_number, client, num_steps, num_steps, result.loss)
        update, upload_bytes = self._link.upload(self._trainer.vector, start, round_number)
        norm = float(torch.linalg.vector_norm(update))
        report = ClientReport(
            round=round_number,
            client=client,
            num_examples=self.num_examples(client),
            loss=result.loss,
            accuracy=result.accuracy,
            update_norm=norm,
            download_bytes=start.num_bytes,
            upload_bytes=upload_bytes,
            seconds=time.perf_counter() - began,
            failure=_failure(result, update, norm),
        )
        return update, report

    def _batches(
        self, client: int, round_number: int, check: Callable[[], None]
    ) -> Iterator[Batch]:
        for indices in self._order(client, round_number):
            check()
            yield collate(self._examples, indices, pad_token_id=self._pad_token_id)

    def _order(self, client: int, round_number: int) -> Iterator[NDArray[np.int64]]:
        """Yield the examples of each step; every epoch of every round has an order of its own."""
        remaining = self.total_steps(client)
        epoch = 0
        while remaining > 0:
            batches = epoch_batches(
                self._examples.lengths,
                self._parts[client],
                batch_size=self._work.batch_size,
                rng=numpy_generator(self._seed, "order", round_number, client, epoch),
                length_grouped=self._work.length_grouped,
            )
            yield from batches[:remaining]
            remaining -= len(batches)
            epoch += 1


def _failure(result: TrainingResult, update: Tensor, norm: float) -> str | None:
    if not math.isfinite(result.loss):
        return f"its loss is {result.loss}"
    # No coordinate is larger than the norm, so a small norm saves a pass over the vector.
    if not norm < LIMIT / 2 and not is_summable(update):
        return f"its update is not finite or has a coordinate beyond {LIMIT:g}"
    return None
