"""Tasks that give an image any of several labels, or none."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scaling_fl.learning.images.stored import StoredImages
from scaling_fl.learning.task import Batch, BatchLoss, Examples, Indices
from scaling_fl.learning.tasks.images import several_scoring
from scaling_fl.learning.tasks.images.family import ImageClassification


@dataclass(frozen=True)
class SeveralLabels(ImageClassification):
    """A classifier of images that gives a score to each label by itself.

    A partition that skews labels skews the first label of each image.
    """

    @property
    def problem_type(self) -> str:
        return "multi_label_classification"

    @property
    def num_counts(self) -> int:
        return several_scoring.num_counts(len(self.label_names))

    def histograms(self, examples: Examples, clients: Sequence[Indices]) -> Indices:
        """Count the images with each label of every client."""
        assert isinstance(examples, StoredImages)
        assert examples.marks is not None
        counts = [examples.marks[indices].sum(0) for indices in clients]
        return np.stack(counts).astype(np.int64)

    def loss(self, model: nn.Module, batch: Batch) -> BatchLoss:
        return several_scoring.loss_of(self.logits(model, batch), batch.tensors["labels"])

    def count(self, model: nn.Module, batch: Batch) -> Tensor:
        return several_scoring.count_of(self.logits(model, batch), batch.tensors["labels"])

    def metrics(self, counts: Tensor, *, detailed: bool) -> dict[str, float]:
        return several_scoring.metrics(counts, self.label_names, per_class=detailed)

    def baseline(self, examples: Examples) -> dict[str, float]:
        """Score each label by its share of the images: the entropy in nats, and the precision."""
        (counts,) = self.histograms(examples, [np.arange(len(examples))])
        shares = counts / len(examples)
        inside = shares[(shares > 0) & (shares < 1)]
        entropies = -(inside * np.log(inside) + (1 - inside) * np.log1p(-inside))
        occurring = shares[shares > 0]
        return {
            "loss": float(entropies.sum() / len(shares)),
            "average_precision_macro": float(occurring.mean()) if len(occurring) else 0.0,
        }

    def largest_batch(self, size: int) -> Batch:
        batch = super().largest_batch(size)
        labels = torch.zeros(size, len(self.label_names), dtype=torch.int64)
        return Batch({**batch.tensors, "labels": labels}, batch.indices)


def first_labels(marks: NDArray[np.bool_]) -> Indices:
    """Return the first label of each image, or 0 if it has none."""
    return np.asarray(marks.argmax(1), dtype=np.int64)
