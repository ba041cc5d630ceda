"""The loss of a language model on answers, and its evaluation as integers that add up exactly."""

import math
from inspect import signature

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from scaling_fl.learning.task import Batch, BatchLoss
from scaling_fl.learning.tasks.instruction.examples import IGNORED

NUM_COUNTS = 4
_LOSS_UNIT = 2.0**32
_LARGEST_LOSS = 2.0**10
"""Losses are summed in units of 2**-32: 2**29 tokens of loss 4 fit 63 bits."""


def loss(model: nn.Module, batch: Batch) -> BatchLoss:
    """Sum the cross-entropy of the tokens that are learned, over their number (at least 1).

    Several batches of one step count by their tokens: the sum of all over the number of all.
    ``token_accuracy`` counts those that the model finds most likely.
    """
    logits, labels = answers(model, batch)
    right = (logits.detach().argmax(-1) == labels).sum()
    total = cross_entropy(logits.float(), labels, reduction="sum")
    return BatchLoss(total / max(len(labels), 1), len(labels), {"token_accuracy": right})


def count(model: nn.Module, batch: Batch) -> Tensor:
    """Evaluate the tokens that are learned.

    Returns int64 of size 4: their summed loss in units of 2**-32, their number, how many the model
    finds most likely, and how many have a loss that is not finite or absurdly large.
    """
    logits, labels = answers(model, batch)
    losses = cross_entropy(logits.float(), labels, reduction="none").double()
    usable = losses <= _LARGEST_LOSS  # false for NaN as well
    summed = (losses[usable] * _LOSS_UNIT).round().long().sum()
    right = (logits.argmax(-1) == labels).sum()
    return torch.stack([summed, labels.new_tensor(len(labels)), right, (~usable).sum()])


def metrics(counts: Tensor) -> dict[str, float]:
    """Turn total counts into the mean loss of a token, its exponential, and the share found."""
    summed, number, right, unusable = (int(value) for value in counts)
    mean = math.inf if unusable else summed / _LOSS_UNIT / max(number, 1)
    return {
        "loss": mean,
        "perplexity": math.exp(mean) if mean < 700 else math.inf,
        "token_accuracy": right / max(number, 1),
    }


def answers(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the logits (tokens, vocabulary) and labels (tokens) of what is learned.

    Logits are made only of positions where an example of the batch has such a token: with a large
    vocabulary they are most of the work beside the model.
    """
    inputs = {name: tensor for name, tensor in batch.tensors.items() if name != "labels"}
    labels = batch.tensors["labels"][:, 1:]
    learned = labels != IGNORED
    if "logits_to_keep" not in signature(model.forward).parameters:
        logits = model(**inputs, use_cache=False).logits[:, :-1]
        return logits[learned], labels[learned]
    columns = learned.any(0).nonzero().squeeze(1)
    logits = model(**inputs, use_cache=False, logits_to_keep=columns).logits
    return logits[learned[:, columns]], labels[learned]
