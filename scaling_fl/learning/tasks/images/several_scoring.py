"""The loss of a classifier that gives several labels, and its evaluation as integers that add up.

Average precision needs all scores in one order. Each score is rounded down to one of 2**14 steps of
1/512 of a logit (from -16 to 16), and the examples with and without a label are counted in each.
Such counts add up over workers exactly; the metrics are those of scikit-learn for these scores.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from scaling_fl.learning.losses import count_losses, mean_loss
from scaling_fl.learning.task import BatchLoss, Indices

_NUM_STEPS = 2**14
_STEPS_PER_LOGIT = 512
_LEAST = -_NUM_STEPS / _STEPS_PER_LOGIT / 2
MOST_LABELS = 1000
"""Counts for so many labels take 262 MB."""


def loss_of(logits: Tensor, marks: Tensor) -> BatchLoss:
    """Compute the mean binary cross-entropy of all answers, from examples x labels.

    ``label_accuracy`` is the share of the answers (the label, or not) that are right.
    """
    right = ((logits.detach() > 0) == (marks > 0)).float().mean(-1).sum()
    mean = binary_cross_entropy_with_logits(logits.float(), marks.float())
    return BatchLoss(mean, len(marks), {"label_accuracy": right})


def num_counts(num_labels: int) -> int:
    """Return the size of what ``count_of`` returns."""
    return num_labels * 2 * _NUM_STEPS + 2


def count_of(logits: Tensor, marks: Tensor) -> Tensor:
    """Count the scores of a batch, from logits and marks (examples x labels).

    Returns int64: for each label the number of examples without it and with it at each step of the
    scores; the summed loss of the examples in units of 2**-32, and the number of those whose loss
    is not finite or absurdly large.
    """
    logits = logits.float()
    losses = binary_cross_entropy_with_logits(logits, marks.float(), reduction="none").mean(-1)
    cells = torch.arange(marks.shape[1], device=marks.device) * 2 + marks
    places = cells * _NUM_STEPS + steps_of(logits)
    counted = torch.bincount(places.flatten(), minlength=num_counts(marks.shape[1]) - 2)
    return torch.cat([counted, count_losses(losses)])


def steps_of(logits: Tensor) -> Tensor:
    """Round logits down to their steps, from 0; what is not a number is of the lowest one."""
    steps = (logits.double() - _LEAST).mul(_STEPS_PER_LOGIT).floor()
    return steps.nan_to_num(nan=0.0).clamp(0, _NUM_STEPS - 1).long()


def metrics(counts: Tensor, label_names: Sequence[str], *, per_class: bool) -> dict[str, float]:
    """Turn total counts into metrics.

    Average precision is the mean of the precision at each step, weighed by what recall gains there
    (macro: the plain mean over the labels that occur; micro: of all answers together). F1 is that
    of logits above 0; its macro mean is over the labels that occur or are answered.
    """
    totals = counts.cpu().numpy()
    found = totals[:-2].reshape(len(label_names), 2, _NUM_STEPS)
    with_label, of_label = found[:, 1].sum(1), _average_precision(found)
    right, answered = (part[..., _NUM_STEPS // 2 :].sum(-1) for part in (found[:, 1], found.sum(1)))
    f1 = 2 * right / np.maximum(answered + with_label, 1)
    occurs, known = with_label > 0, answered + with_label > 0
    num_examples = int(found[0].sum())
    result = {
        "loss": mean_loss(int(totals[-2]), int(totals[-1]), num_examples),
        "average_precision_macro": float(of_label[occurs].mean()) if occurs.any() else 0.0,
        "average_precision_micro": float(_average_precision(found.sum(0))),
        "f1_micro": float(2 * right.sum() / max(int((answered + with_label).sum()), 1)),
        "f1_macro": float(f1[known].mean()) if known.any() else 0.0,
    }
    if per_class:
        for label in np.flatnonzero(occurs).tolist():
            result[f"average_precision.{label_names[label]}"] = float(of_label[label])
        for label in np.flatnonzero(known).tolist():
            result[f"f1.{label_names[label]}"] = float(f1[label])
    return result


def _average_precision(found: Indices) -> NDArray[np.float64]:
    """Compute it from counts of (..., without and with the label, step); 0 if no example has it."""
    down = found[..., ::-1]
    right = down[..., 1, :].cumsum(-1)
    precision = right / np.maximum(down.sum(-2).cumsum(-1), 1)
    gained: NDArray[np.float64] = down[..., 1, :] / np.maximum(right[..., -1:], 1)
    return np.asarray((gained * precision).sum(-1))
