"""Evaluation of the global state; every worker evaluates some of the batches."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scaling_fl.core.exchange import Exchange
from scaling_fl.core.state import Tensors
from scaling_fl.federation.personal import with_own
from scaling_fl.learning.task import Indices, Measurement
from scaling_fl.learning.training.batches import evaluation_batches
from scaling_fl.learning.training.local import LocalTrainer


class _PartOfMeasurement(NamedTuple):
    """A batch of a measurement, and the client whose model answers it (-1: the global one)."""

    number: int
    owner: int
    indices: Indices


class Evaluator:
    """Evaluates a global vector; the batches do not depend on the number of workers.

    Where clients keep the ``personal`` coordinates (bool of the vector's size), ``owners`` names
    the client whose model answers each example of the first measurement (-1: none, so the global
    vector does, as it answers what else is measured).
    """

    def __init__(
        self,
        trainer: LocalTrainer,
        measured: Sequence[Measurement],
        *,
        batch_size: int,
        detailed: bool,
        owners: Indices | None = None,
        personal: Tensor | None = None,
    ) -> None:
        self._trainer, self._measured = trainer, measured
        self._parts = [
            part
            for number, each in enumerate(measured)
            for part in _batches(number, each, None if number else owners, batch_size)
        ]
        self._personal = personal
        self._detailed = detailed

    @property
    def num_batches(self) -> list[int]:
        """The number of batches of each measurement, of all workers; they are in this order."""
        numbers = [part.number for part in self._parts]
        return [numbers.count(number) for number in range(len(self._measured))]

    def __call__(
        self, vector: Tensor, exchange: Exchange, memories: Mapping[int, Tensors] | None = None
    ) -> dict[str, float]:
        """Return the validation metrics of a global vector; equal on all workers.

        Each worker counts on its own batches. The counts are integers, so their sum is exact.
        ``memories`` are those of the clients; one that has none answers as the global vector does.
        """
        model, device = self._trainer.model, vector.device
        sizes = [each.num_counts for each in self._measured]
        whole = torch.zeros(sum(sizes), dtype=torch.int64, device=device)
        counts = whole.split(sizes)
        model.eval()
        loaded, of_clients = None, memories or {}
        with torch.inference_mode():
            for number, owner, indices in self._parts[exchange.rank :: exchange.size]:
                if owner != loaded:
                    own = with_own(vector, self._personal, of_clients.get(owner, {}))
                    self._trainer.vector.copy_(own)
                    loaded = owner
                each = self._measured[number]
                counts[number].add_(each.count(model, each.examples.batch(indices).to(device)))
        totals = exchange.total(whole).split(sizes)
        return {
            f"validation.{each.name}{'.' * bool(each.name)}{name}": value
            for each, total in zip(self._measured, totals, strict=True)
            for name, value in each.metrics(total, self._detailed).items()
        }


def _batches(
    number: int, each: Measurement, owners: Indices | None, batch_size: int
) -> list[_PartOfMeasurement]:
    owners = np.full(len(each.examples), -1) if owners is None else owners
    return [
        _PartOfMeasurement(number, owner, mine[batch])
        for owner in np.unique(owners).tolist()
        for mine in [np.flatnonzero(owners == owner)]
        for batch in evaluation_batches(
            each.examples.lengths[mine], min(batch_size, each.most_at_once)
        )
    ]
