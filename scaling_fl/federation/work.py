"""How much a client does in a round, and which examples go into each of its batches."""

import math
from dataclasses import dataclass

import numpy as np

from scaling_fl.learning.task import Indices
from scaling_fl.learning.training.batches import epoch_batches, packed_batches


@dataclass(frozen=True, kw_only=True)
class LocalWork:
    """How much a client does in a round: epochs over its examples, or a fixed number of steps."""

    batch_size: int
    num_epochs: int | None
    num_steps: int | None
    length_grouped: bool = False
    batches_per_step: int = 1
    packed_width: int | None = None
    """Tokens of a row of packed examples, of which a batch has ``batch_size``; None: unpacked."""
    is_fixed: bool = False
    """Whether every round takes the examples in the same order."""

    def total_steps(self, num_examples: int) -> int:
        return math.ceil(self.num_batches(num_examples) / self.batches_per_step)

    def num_batches(self, num_examples: int) -> int:
        if self.num_steps is not None:
            return self.num_steps * self.batches_per_step
        return (self.num_epochs or 0) * math.ceil(num_examples / self.batch_size)

    def epoch(self, lengths: Indices, examples: Indices, rng: np.random.Generator) -> list[Indices]:
        """Cut one epoch over some examples into batches."""
        if self.packed_width is not None:
            return packed_batches(
                lengths, examples, num_rows=self.batch_size, width=self.packed_width, rng=rng
            )
        return epoch_batches(
            lengths,
            examples,
            batch_size=self.batch_size,
            rng=rng,
            length_grouped=self.length_grouped,
        )
