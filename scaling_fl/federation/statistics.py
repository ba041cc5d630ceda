"""What clients send beside their updates: statistics of their examples, for some merges."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scaling_fl.core.seeding import numpy_generator
from scaling_fl.learning.task import Batch, Examples, Statistic
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
        mine: NDArray[np.int64],
        *,
        round_number: int,
        client: int,
        check: Callable[[], None] = lambda: None,
    ) -> dict[str, Payload]:
        """Compute all from the model as it was trained, and from the examples ``mine``.

        ``check`` is called before every example; it may raise an exception to abandon the round.
        """
        if self.num_examples is not None and self.num_examples < len(mine):
            rng = numpy_generator(self.seed, "statistics", round_number, client)
            mine = rng.permutation(mine)[: self.num_examples]
        device, sent = trainer.vector.device, {}

        def one_by_one() -> Iterator[Batch]:
            for i in range(len(mine)):
                check()
                yield examples.batch(mine[i : i + 1]).to(device)

        for name, statistic in self.by_name.items():
            values = statistic.compute(trainer.model, trainer.loss, one_by_one())
            sent[name] = PLAIN.send(values, statistic.size)
        return sent
