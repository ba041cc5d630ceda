"""Evaluation of the global state; every worker evaluates some of the batches."""

import torch
from torch import Tensor

from scaling_fl.core.exchange import Exchange
from scaling_fl.learning.task import Examples, Task
from scaling_fl.learning.training.batches import evaluation_batches
from scaling_fl.learning.training.local import LocalTrainer


class Evaluator:
    """Evaluates a global vector; the batches do not depend on the number of workers."""

    def __init__(
        self,
        trainer: LocalTrainer,
        examples: Examples,
        task: Task,
        *,
        batch_size: int,
        detailed: bool,
    ) -> None:
        self._trainer, self._examples, self._task = trainer, examples, task
        self._batches = evaluation_batches(examples.lengths, batch_size)
        self._detailed = detailed

    @property
    def num_batches(self) -> int:
        """The number of batches of all workers."""
        return len(self._batches)

    def __call__(self, vector: Tensor, exchange: Exchange) -> dict[str, float]:
        """Return the validation metrics of a global vector; equal on all workers.

        Each worker counts on its own batches. The counts are integers, so their sum is exact.
        """
        self._trainer.vector.copy_(vector)
        model, device = self._trainer.model, vector.device
        counts = torch.zeros(self._task.num_counts, dtype=torch.int64, device=device)
        model.eval()
        with torch.inference_mode():
            for indices in self._batches[exchange.rank :: exchange.size]:
                counts += self._task.count(model, self._examples.batch(indices).to(device))
        found = self._task.metrics(exchange.total(counts), detailed=self._detailed)
        return {f"validation.{name}": value for name, value in found.items()}
