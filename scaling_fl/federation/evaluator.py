"""Evaluation of the global state; every worker evaluates some of the batches."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from scaling_fl.core.exchange import Exchange
from scaling_fl.core.state import Tensors
from scaling_fl.federation.personal import with_own
from scaling_fl.learning.task import Examples, Indices, Task
from scaling_fl.learning.training.batches import evaluation_batches
from scaling_fl.learning.training.local import LocalTrainer


class Evaluator:
    """Evaluates a global vector; the batches do not depend on the number of workers.

    Where clients keep the ``personal`` coordinates (bool of the vector's size), ``owners`` names
    the client whose model answers each example (-1: none, so the global vector does).
    """

    def __init__(
        self,
        trainer: LocalTrainer,
        examples: Examples,
        task: Task,
        *,
        batch_size: int,
        detailed: bool,
        owners: Indices | None = None,
        personal: Tensor | None = None,
    ) -> None:
        self._trainer, self._examples, self._task = trainer, examples, task
        owners = np.full(len(examples), -1) if owners is None else owners
        self._batches = [
            (owner, mine[batch])
            for owner in np.unique(owners).tolist()
            for mine in [np.flatnonzero(owners == owner)]
            for batch in evaluation_batches(examples.lengths[mine], batch_size)
        ]
        self._personal = personal
        self._detailed = detailed

    @property
    def num_batches(self) -> int:
        """The number of batches of all workers."""
        return len(self._batches)

    def __call__(
        self, vector: Tensor, exchange: Exchange, memories: Mapping[int, Tensors] | None = None
    ) -> dict[str, float]:
        """Return the validation metrics of a global vector; equal on all workers.

        Each worker counts on its own batches. The counts are integers, so their sum is exact.
        ``memories`` are those of the clients; one that has none answers as the global vector does.
        """
        model, device = self._trainer.model, vector.device
        counts = torch.zeros(self._task.num_counts, dtype=torch.int64, device=device)
        model.eval()
        loaded, of_clients = None, memories or {}
        with torch.inference_mode():
            for owner, indices in self._batches[exchange.rank :: exchange.size]:
                if owner != loaded:
                    own = with_own(vector, self._personal, of_clients.get(owner, {}))
                    self._trainer.vector.copy_(own)
                    loaded = owner
                counts += self._task.count(model, self._examples.batch(indices).to(device))
        found = self._task.metrics(exchange.total(counts), detailed=self._detailed)
        return {f"validation.{name}": value for name, value in found.items()}
