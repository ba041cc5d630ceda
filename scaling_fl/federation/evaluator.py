"""Evaluation of the global state; every worker evaluates some of the batches."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from scaling_fl.core.exchange import Exchange
from scaling_fl.core.state import Tensors
from scaling_fl.federation.personal import with_own
from scaling_fl.learning.task import Indices, Measurement
from scaling_fl.learning.training.batches import evaluation_batches
from scaling_fl.learning.training.local import LocalTrainer

MISSING = "validation.missing_clients"
"""The metric in place of all others of an evaluation that some clients' nodes did not answer."""
EVALUATION_BYTES = "bytes.evaluation"
"""The bytes that went to nodes and came back to evaluate there, beside those of the round."""


class Elsewhere(NamedTuple):
    """What nodes have counted on the test examples of their clients."""

    counts: Tensor
    """Of the first measurement, int64, over the clients that were answered for."""
    num_missing: int
    num_bytes: int


class AskNodes(Protocol):
    """Has test examples answered on the nodes of the clients that have them."""

    def __call__(
        self,
        clients: Sequence[int],
        vector: Tensor,
        memories: Mapping[int, Tensors],
        check: Callable[[], None],
    ) -> Elsewhere:
        """Evaluate a global vector, at each client with what it keeps itself.

        ``check`` is called often meanwhile; it may raise an exception to abandon the round.
        """


class _PartOfMeasurement(NamedTuple):
    """A batch of a measurement, and the client whose model answers it (-1: the global one)."""

    number: int
    owner: int
    indices: Indices


class Evaluator:
    """Evaluates a global vector; the batches do not depend on the number of workers.

    Where clients keep the ``personal`` coordinates (bool of the vector's size), ``owners`` names
    the client whose model answers each example of the first measurement (-1: none, so the global
    vector does, as it answers what else is measured). With ``ask_nodes``, the owners' examples are
    evaluated on their nodes.
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
        ask_nodes: AskNodes | None = None,
    ) -> None:
        self._trainer, self._measured = trainer, measured
        self._parts = [
            part
            for number, each in enumerate(measured)
            for part in _batches(number, each, None if number else owners, batch_size)
        ]
        self._personal = personal
        self._detailed = detailed
        self._ask_nodes = ask_nodes
        self._asked: list[int] = []
        if ask_nodes:
            self._asked = sorted({part.owner for part in self._parts} - {-1})
            self._parts = [part for part in self._parts if part.owner == -1]

    @property
    def num_batches(self) -> list[int]:
        """The number of batches of each measurement here, of all workers; in this order."""
        numbers = [part.number for part in self._parts]
        return [numbers.count(number) for number in range(len(self._measured))]

    def __call__(
        self,
        vector: Tensor,
        exchange: Exchange,
        memories: Mapping[int, Tensors] | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> dict[str, float]:
        """Return the validation metrics of a global vector; equal on all workers.

        Each worker counts on its own batches. The counts are integers, so their sum is exact.
        ``memories`` are those of the clients; one that has none answers as the global vector does.
        Where a node does not answer, ``MISSING`` is the one metric: those of the other clients
        alone would be other metrics.
        """
        of_clients = memories or {}
        sizes = [*(each.num_counts for each in self._measured), 2]
        whole = torch.zeros(sum(sizes), dtype=torch.int64, device=vector.device)
        counts = whole.split(sizes)
        self._count(self._parts[exchange.rank :: exchange.size], vector, of_clients, counts)
        if self._ask_nodes and (mine := self._asked[exchange.rank :: exchange.size]):
            found = self._ask_nodes(mine, vector, of_clients, check)
            counts[0].add_(found.counts.to(vector.device))
            counts[-1].add_(torch.tensor([found.num_missing, found.num_bytes]).to(vector.device))
        *totals, (num_missing, num_bytes) = exchange.total(whole).split(sizes)
        if num_missing:
            return {MISSING: float(num_missing)}
        metrics = {
            f"validation.{each.name}{'.' * bool(each.name)}{name}": value
            for each, total in zip(self._measured, totals, strict=True)
            for name, value in each.metrics(total, self._detailed).items()
        }
        return metrics | ({EVALUATION_BYTES: float(num_bytes)} if self._ask_nodes else {})

    def counts_of(self, client: int, vector: Tensor, memory: Tensors) -> Tensor:
        """Count on the test examples of one client, with what it keeps; int64 of the first size."""
        counts = torch.zeros(self._measured[0].num_counts, dtype=torch.int64, device=vector.device)
        mine = [part for part in self._parts if part.owner == client]
        self._count(mine, vector, {client: memory}, [counts])
        return counts

    def _count(
        self,
        parts: Iterable[_PartOfMeasurement],
        vector: Tensor,
        memories: Mapping[int, Tensors],
        counts: Sequence[Tensor],
    ) -> None:
        """Add to the counts of each measurement those of some batches."""
        model, loaded = self._trainer.model, None
        model.eval()
        with torch.inference_mode():
            for number, owner, indices in parts:
                if owner != loaded:
                    own = with_own(vector, self._personal, memories.get(owner, {}))
                    self._trainer.vector.copy_(own)
                    loaded = owner
                each = self._measured[number]
                batch = each.examples.batch(indices).to(vector.device)
                counts[number].add_(each.count(model, batch))


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
