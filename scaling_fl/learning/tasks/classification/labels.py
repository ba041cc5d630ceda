"""What all tasks have in common that give something one of several labels, be it a text or not."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from scaling_fl.learning.options import TaskOptions
from scaling_fl.learning.task import Examples, Indices, PartitionDescription
from scaling_fl.learning.tasks.classification import scoring
from scaling_fl.learning.tasks.classification.histograms import entropy_bits, label_histograms

_SHOWN_LABELS = 5


class OfOneLabel(ABC):
    """The part of a task that knows labels, and not what they are of."""

    options: TaskOptions

    @property
    @abstractmethod
    def label_names(self) -> list[str]:
        """Name the labels, which are numbered from 0."""

    @property
    def meaning(self) -> dict[str, Any]:
        return {"labels": self.label_names}

    @property
    def num_counts(self) -> int:
        return scoring.num_counts(len(self.label_names))

    def histograms(self, examples: Examples, clients: Sequence[Indices]) -> Indices:
        """Count the labels of every client, given its examples: int64 (clients, labels)."""
        return label_histograms(examples.strata, clients, len(self.label_names))

    def describe(self, examples: Examples, clients: Sequence[Indices]) -> PartitionDescription:
        histograms = self.histograms(examples, clients)
        entropies = [entropy_bits(histogram) for histogram in histograms]
        fields = {
            "label_names": self.label_names,
            "histograms": histograms.tolist(),
            "entropies": entropies,
        }
        sentence = (
            f"{len(examples)} examples of {len(self.label_names)} labels: "
            f"{self._counted(histograms.sum(0))}; label entropy "
            f"{entropy_bits(histograms.sum(0)):.2f} bits in all, {min(entropies):.2f} to "
            f"{max(entropies):.2f} bits at the clients"
        )
        return PartitionDescription(fields, sentence)

    def _counted(self, counts: Indices) -> str:
        """Name the first labels with their numbers of examples."""
        names = [n if len(n) <= 30 else f"{n[:27]}..." for n in self.label_names]
        named = [f"{name} ({count})" for name, count in zip(names, counts, strict=True)]
        more = ", ..." * (len(named) > _SHOWN_LABELS)
        return ", ".join(named[:_SHOWN_LABELS]) + more

    def caveat(self, test: Examples) -> str:
        (counts,) = self.histograms(test, [np.arange(len(test))])
        absent = [name for name, count in zip(self.label_names, counts, strict=True) if not count]
        if not absent:
            return ""
        shown = ", ".join(absent[:_SHOWN_LABELS])
        more = f" and {len(absent) - _SHOWN_LABELS} more" * (len(absent) > _SHOWN_LABELS)
        return (
            f"no test example is of {shown}{more} ({len(absent)} of {len(self.label_names)} "
            "labels): the metrics say nothing about them, and f1_macro is the mean over the labels "
            "that occur or are answered"
        )

    def heads(self, model: Any) -> list[str]:
        return beside_the_encoder(model)

    def metrics(self, counts: Tensor, *, detailed: bool) -> dict[str, float]:
        found = scoring.metrics(counts, self.label_names, per_class=detailed)
        confusion = scoring.confusion_matrix(counts, len(self.label_names))
        for name, metric in self.options.metrics.items():
            found[name] = float(metric(confusion.copy(), self.label_names))
        return found

    def baseline(self, examples: Examples) -> dict[str, float]:
        """Return the share of the commonest label, and the entropy of the labels in nats."""
        (histogram,) = self.histograms(examples, [np.arange(len(examples))])
        loss = entropy_bits(histogram) * math.log(2)
        return {"accuracy": float(histogram.max() / histogram.sum()), "loss": loss}


def beside_the_encoder(model: Any) -> list[str]:
    """Name the children of a classifier that have weights and are not its encoder."""
    return [
        name
        for name, child in model.named_children()
        if name != model.base_model_prefix and next(child.parameters(), None) is not None
    ]
