"""A task is a value: what is learned, from which examples, and how it is measured.

The federation, the merges, the codecs and privacy know only what stands here. A family of tasks
(``tasks/classification`` is the first) implements it for its kind of data and model.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Indices = NDArray[np.int64]
Split = Literal["train", "test"]


@dataclass(frozen=True)
class Batch:
    """Named tensors, and the indices of the examples that they were made of."""

    tensors: Mapping[str, Tensor]
    indices: Indices

    def __len__(self) -> int:
        """Count the examples."""
        return len(self.indices)

    def to(self, device: torch.device) -> "Batch":
        return Batch({name: t.to(device) for name, t in self.tensors.items()}, self.indices)


class Examples(Protocol):
    """The examples of one split, in an order that is the same on all workers."""

    @property
    def key(self) -> str:
        """Identify the content: two splits with one key hold the same examples."""

    @property
    def lengths(self) -> Indices:
        """Return the size of each example, by which batches may be grouped (a text: tokens)."""

    @property
    def strata(self) -> Indices:
        """Return the class of each example, which partitions skew; zeros if there are none."""

    def __len__(self) -> int:
        """Count the examples."""

    def batch(self, indices: Indices) -> Batch:
        """Collate the examples at ``indices`` (one or more), in that order."""


@runtime_checkable
class Prepared(Protocol):
    """What examples offer beside the rest when a model's tokenizer or the like has changed them."""

    @property
    def source(self) -> str:
        """Identify the content before that: equal for two models on the same examples."""


class BatchLoss(NamedTuple):
    """The loss of a batch, and what else was measured with it."""

    mean: Tensor
    """The loss to be minimised, a scalar with a gradient; a mean over ``weight`` items."""
    weight: int | Tensor
    """The number of those items, such as examples or tokens."""
    sums: Mapping[str, Tensor]
    """Metric -> its sum over the same items, without a gradient; always the same metrics."""


@runtime_checkable
class Grouped(Protocol):
    """What examples offer beside the rest when a run names a column of groups."""

    @property
    def groups(self) -> Indices | None:
        """Return the group of each example, by a number; None: no column is named."""


LossFunction = Callable[[nn.Module, Batch], BatchLoss]


class Statistic(NamedTuple):
    """What a client computes of its examples with the model that it trained, for some merges."""

    size: int
    """The number of values, which the model decides before it is trained."""
    compute: Callable[[nn.Module, LossFunction, Iterable[Batch]], Tensor]
    """(trained model, loss, the client's examples in batches) -> fp32 of ``size``.

    Leaves the model as it is, and draws nothing at random.
    """
    most_at_once: int = 1
    """The most examples of a batch; those of a batch are equally long."""


MakeStatistic = Callable[[nn.Module], Statistic]
"""Makes a statistic for a model. A merge of one's own names in ``payloads`` what its clients send:

    def largest_loss(model):
        def compute(model, loss, batches):
            losses = [loss(model, batch).mean.detach() for batch in batches]
            return torch.stack(losses).max().reshape(1)

        return Statistic(1, compute)

    def by_largest_loss():
        def merge(updates, round):
            return round.mean_over_senders(
                (u.vector, u.share / (1 + float(u.extras["largest_loss"][0])), None)
                for u in updates.once()
            )

        return merge

    by_largest_loss.payloads = {"largest_loss": largest_loss}
"""


class PartitionDescription(NamedTuple):
    """Who owns what: ``fields`` for the journal's event ``partition``, a sentence for people."""

    fields: dict[str, Any]
    sentence: str


class Task(Protocol):
    """One task with its options. To make one costs nothing; methods named ``load_`` read files."""

    @property
    def meaning(self) -> dict[str, Any]:
        """Return what a saved vector means by this task, as JSON; checkpoints must match it."""

    @property
    def num_counts(self) -> int:
        """Return the size of what ``count`` returns."""

    def load_examples(self, split: Split) -> Examples:
        """Read and prepare one split, once per machine.

        Raises:
            UserError: the data is not what the task needs.
        """

    def describe(self, examples: Examples, clients: Sequence[Indices]) -> PartitionDescription:
        """Describe a partition, given the examples of each client."""

    def caveat(self, test: Examples) -> str:
        """Say what the metrics on the test examples cannot tell, or nothing (an empty text)."""

    def load_model(self) -> nn.Module:
        """Load the model in fp32 onto the CPU; new weights in it depend on the seed alone.

        Raises:
            UserError: the model cannot be loaded, or does not fit the task.
        """

    def heads(self, model: nn.Module) -> list[str]:
        """Name the modules that were made for the task; adapters leave them to be trained whole."""

    def loss(self, model: nn.Module, batch: Batch) -> BatchLoss:
        """Compute the loss of a batch for a training step."""

    def count(self, model: nn.Module, batch: Batch) -> Tensor:
        """Evaluate a batch; returns int64 counts, which add up over batches and workers."""

    def metrics(self, counts: Tensor, *, detailed: bool) -> dict[str, float]:
        """Turn the total counts into metrics by name; ``detailed`` adds those of each class.

        Their names do not depend on the counts, but for those of classes.
        """

    def baseline(self, examples: Examples) -> dict[str, float]:
        """Return metrics (loss, accuracy) of a model that does not look at its input.

        A run that comes to no better ones has learned nothing. Empty: no such model is known.
        """

    def largest_batch(self, size: int) -> Batch:
        """Make up a batch of the largest possible examples, to measure the memory it takes."""

    def save_model(self, model: nn.Module, folder: Path) -> None:
        """Write a trained model without an adapter as other programs expect it."""

    def save_adapter(self, model: nn.Module, folder: Path, *, base_model: str) -> None:
        """Write a trained adapter for PEFT, to be loaded onto the model named ``base_model``."""


@dataclass(frozen=True)
class Measurement:
    """A set of examples, and how a model is measured on them."""

    examples: Examples
    num_counts: int
    """The size of what ``count`` returns."""
    count: Callable[[nn.Module, Batch], Tensor]
    """Evaluates a batch; returns int64 counts, which add up over batches and workers."""
    metrics: Callable[[Tensor, bool], dict[str, float]]
    """(total counts, whether those of each class are wanted) -> metrics by name."""
    name: str = ""
    """What the names of its metrics begin with, before a dot."""
    note: str = ""
    """What its metrics cannot tell; empty: nothing is worth a note."""
    most_at_once: int = 2**31
    """The most examples of a batch."""


def of_test(task: Task, test: Examples) -> Measurement:
    """Return how a task measures a model on its test examples."""

    def metrics(counts: Tensor, detailed: bool) -> dict[str, float]:
        return task.metrics(counts, detailed=detailed)

    return Measurement(test, task.num_counts, task.count, metrics)


@runtime_checkable
class MeasuresMore(Protocol):
    """What a task offers beside a Task's methods when test examples are not all it measures."""

    def load_measurements(self) -> list[Measurement]:
        """Read what else a model is measured on; their names are different ones.

        Raises:
            UserError: the data is not what the task needs.
        """


Metric = Callable[[NDArray[np.int64], Sequence[str]], float]
"""(confusion matrix, names of the labels) -> a metric; row: true label, column: answer.

The matrix is of all test examples and exact, however many workers there are. A metric of one's own:

    def balanced_accuracy(confusion, label_names):
        sizes = confusion.sum(axis=1)
        return float((confusion.diagonal()[sizes > 0] / sizes[sizes > 0]).mean())
"""


@runtime_checkable
class NaturalClients(Protocol):
    """What a task offers beside a Task's methods when its data says whose each example is."""

    def client_names(self) -> list[str]:
        """Name the clients of the training data; client i is named ``client_names()[i]``."""

    def owners(self, examples: Examples) -> Indices | None:
        """Return the client of each example, -1 where no client is so named.

        None: these test examples do not say whose they are.
        """
