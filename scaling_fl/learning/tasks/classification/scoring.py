"""Evaluation as integer sums: each worker counts its share, and the total is exact."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from scaling_fl.learning.text.batches import Batch

_LOSS_UNIT = 2.0**32
_LARGEST_LOSS = 2.0**10
"""Losses are summed in units of 2**-32; almost 2**21 examples of the largest loss fit 63 bits."""


def count(
    model: nn.Module, batches: Iterable[Batch], *, num_labels: int, device: torch.device
) -> Tensor:
    """Count what a model gets right on this worker's batches.

    Returns int64 of size num_labels**2 + 2 on ``device``: the confusion matrix (row: true label,
    column: answer), the summed loss in units of 2**-32, and the number of examples whose loss is
    not finite or absurdly large. Counts of several workers add up.
    """
    counts = torch.zeros(num_labels**2 + 2, dtype=torch.int64, device=device)
    model.eval()
    with torch.inference_mode():
        for batch in batches:
            here = batch.to(device)
            logits = model(
                input_ids=here.input_ids, attention_mask=here.attention_mask
            ).logits.float()
            losses = cross_entropy(logits, here.labels, reduction="none").double()
            usable = losses <= _LARGEST_LOSS  # false for NaN as well
            cells = here.labels * num_labels + logits.argmax(-1)
            counts[:-2] += torch.bincount(cells, minlength=num_labels**2)
            counts[-2] += (losses[usable] * _LOSS_UNIT).round().long().sum()
            counts[-1] += (~usable).sum()
    return counts


def metrics(counts: Tensor, label_names: list[str], *, per_class: bool) -> dict[str, float]:
    """Turn total counts into validation metrics.

    Macro F1 is the plain mean over the labels; a label that neither occurs nor is answered
    counts as 0, as in scikit-learn with ``zero_division=0`` and all labels named.
    """
    num_labels = len(label_names)
    totals = counts.cpu().numpy()
    confusion = totals[:-2].reshape(num_labels, num_labels)
    num_examples = int(confusion.sum())
    right = np.diag(confusion).astype(np.float64)
    sizes = confusion.sum(1) + confusion.sum(0)
    f1 = 2 * right / np.maximum(sizes, 1)
    result = {
        "validation.loss": float(totals[-2] / _LOSS_UNIT / num_examples),
        "validation.accuracy": float(right.sum() / num_examples),
        "validation.f1_macro": float(f1.mean()),
    }
    if totals[-1]:
        result["validation.loss"] = float("inf")
    if per_class:
        precision = right / np.maximum(confusion.sum(0), 1)
        recall = right / np.maximum(confusion.sum(1), 1)
        for kind, values in (("precision", precision), ("recall", recall), ("f1", f1)):
            for name, value in zip(label_names, values, strict=True):
                result[f"validation.{kind}.{name}"] = float(value)
    return result
