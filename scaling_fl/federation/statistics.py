"""What clients send beside their updates: statistics of their examples, for some merges."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from scaling_fl.core.seeding import numpy_generator
from scaling_fl.learning.task import Batch, Examples, Indices, Statistic
from scaling_fl.learning.training.local import LocalTrainer
from scaling_fl.methods.wire.direction import PLAIN, Payload


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """The statistics by name, and the number of examples that they are of (None: all)."""

    by_name: Mapping[str, Statistic] = field(default_factory=dict)
    num_examples: int | None = None
    seed: int = 0

    def send(
        self,
        trainer: LocalTrainer,
        examples: Examples,
        mine: Indices,
        *,
        batch_size: int,
        round_number: int,
        client: int,
        check: Callable[[], None] = lambda: None,
    ) -> dict[str, Payload]:
        """Compute all from the model as it was trained, and from the examples ``mine``.

        ``batch_size`` is that of training, of which the memory is known to be enough. ``check`` is
        called before every batch; it may raise an exception to abandon the round.
        """
        if self.num_examples is not None and self.num_examples < len(mine):
            rng = numpy_generator(self.seed, "statistics", round_number, client)
            mine = rng.permutation(mine)[: self.num_examples]
        device, sent = trainer.vector.device, {}

        def batches(size: int) -> Iterator[Batch]:
            for indices in _alike(mine, examples, size):
                check()
                yield examples.batch(indices).to(device)

        for name, statistic in self.by_name.items():
            seen = batches(min(statistic.most_at_once, batch_size))
            values = statistic.compute(trainer.model, trainer.loss, seen)
            sent[name] = PLAIN.send(values, statistic.size)
        return sent


def _alike(mine: Indices, examples: Examples, size: int) -> Iterator[Indices]:
    """Yield ``mine`` in batches of equal length, so that no example is padded for another's sake.

    Batches of one stay in their order.
    """
    if size == 1:
        yield from mine[:, None]
        return
    lengths = examples.lengths[mine]
    ordered = mine[np.argsort(lengths, kind="stable")]
    for _, alike in groupby(ordered, key=lambda index: int(examples.lengths[index])):
        together = np.array(list(alike))
        yield from np.split(together, range(size, len(together), size))
