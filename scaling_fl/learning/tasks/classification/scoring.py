"""The loss of a classifier, and its evaluation as integers that add up over workers exactly."""

from collections.abc import Sequence
from inspect import signature

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from scaling_fl.learning.losses import count_losses, mean_loss
from scaling_fl.learning.task import Batch, BatchLoss, Indices


def loss(model: nn.Module, batch: Batch) -> BatchLoss:
    """Compute the mean cross-entropy of a batch, and its number of right answers, ``accuracy``."""
    return loss_of(_logits(model, batch), batch.tensors["labels"])


def loss_of(logits: Tensor, labels: Tensor) -> BatchLoss:
    """Compute the same from logits (examples x labels) and labels (examples)."""
    right = (logits.detach().argmax(-1) == labels).sum()
    return BatchLoss(cross_entropy(logits.float(), labels), len(labels), {"accuracy": right})


def num_counts(num_labels: int) -> int:
    """Return the size of what ``count`` returns."""
    return num_labels**2 + 2


def count(model: nn.Module, batch: Batch) -> Tensor:
    """Count what a model answers on a batch.

    Returns int64 of size num_labels**2 + 2: the confusion matrix (row: true label, column:
    answer), the summed loss in units of 2**-32, and the number of examples whose loss is not
    finite or absurdly large.
    """
    return count_of(_logits(model, batch), batch.tensors["labels"])


def count_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Count the same from logits (examples x labels) and labels (examples)."""
    num_labels = logits.shape[-1]
    logits = logits.float()
    losses = cross_entropy(logits, labels, reduction="none")
    cells = labels * num_labels + logits.argmax(-1)
    confusion = torch.bincount(cells, minlength=num_labels**2)
    return torch.cat([confusion, count_losses(losses)])


def confusion_matrix(counts: Tensor, num_labels: int) -> Indices:
    """Return the confusion matrix in total counts: (true label, answer)."""
    return counts[:-2].reshape(num_labels, num_labels).cpu().numpy()


def metrics(counts: Tensor, label_names: Sequence[str], *, per_class: bool) -> dict[str, float]:
    """Turn total counts into metrics.

    Macro F1 is the plain mean over the labels that occur or are answered, as
    ``f1_score(..., average="macro", zero_division=0)`` of scikit-learn computes it. A label that
    neither occurs nor is answered has no scores of its own; a score that would divide by 0 is 0.
    """
    num_labels = len(label_names)
    totals = counts.cpu().numpy()
    confusion = confusion_matrix(counts, num_labels)
    num_examples = int(confusion.sum())
    right = np.diag(confusion).astype(np.float64)
    sizes = confusion.sum(1) + confusion.sum(0)
    known = sizes > 0
    f1 = 2 * right / np.maximum(sizes, 1)
    result = {
        "loss": mean_loss(int(totals[-2]), int(totals[-1]), num_examples),
        "accuracy": float(right.sum() / num_examples),
        "f1_macro": float(f1[known].mean()),
    }
    if per_class:
        precision = right / np.maximum(confusion.sum(0), 1)
        recall = right / np.maximum(confusion.sum(1), 1)
        for kind, values in (("precision", precision), ("recall", recall), ("f1", f1)):
            for label in np.flatnonzero(known).tolist():
                result[f"{kind}.{label_names[label]}"] = float(values[label])
    return result


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    inputs = {name: batch.tensors[name] for name in ("input_ids", "attention_mask")}
    if "token_type_ids" in batch.tensors and _tells_segments_apart(model):
        inputs["token_type_ids"] = batch.tensors["token_type_ids"]
    answer = model(**inputs)
    logits: Tensor = answer.logits
    return logits


def _tells_segments_apart(model: nn.Module) -> bool:
    """Say whether a model takes segments, which its tokenizer may give although it does not."""
    num_segments = getattr(getattr(model, "config", None), "type_vocab_size", 2)
    return num_segments != 1 and "token_type_ids" in signature(model.forward).parameters
