"""The loss of a language model on answers, and its evaluation as integers that add up exactly."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from scaling_fl.learning.losses import count_losses, mean_loss
from scaling_fl.learning.task import Batch, BatchLoss
from scaling_fl.learning.tasks.instruction.examples import IGNORED

NUM_COUNTS = 4
_ROWS_AT_ONCE = 8
"""The logits of 512 rows, which classifiers have at once, are gigabytes of a large vocabulary."""


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
    return torch.stack([_count(model, part) for part in _parts(batch)]).sum(0)


def _parts(batch: Batch) -> Iterator[Batch]:
    """Cut a batch of any size into some rows each, without the columns that are padding in all."""
    for begin in range(0, len(batch.indices), _ROWS_AT_ONCE):
        rows = slice(begin, begin + _ROWS_AT_ONCE)
        width = int(batch.tensors["attention_mask"][rows].any(0).sum())
        tensors = {name: tensor[rows, :width] for name, tensor in batch.tensors.items()}
        yield Batch(tensors, batch.indices[rows])


def _count(model: nn.Module, batch: Batch) -> Tensor:
    logits, labels = answers(model, batch)
    summed, unusable = count_losses(cross_entropy(logits.float(), labels, reduction="none"))
    right = (logits.argmax(-1) == labels).sum()
    return torch.stack([summed, labels.new_tensor(len(labels)), right, unusable])


def metrics(counts: Tensor) -> dict[str, float]:
    """Turn total counts into the mean loss of a token, its exponential, and the share found."""
    summed, number, right, unusable = (int(value) for value in counts)
    mean = mean_loss(summed, unusable, number)
    return {
        "loss": mean,
        "perplexity": math.exp(mean) if mean < 700 else math.inf,
        "token_accuracy": right / max(number, 1),
    }


def answers(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the logits (tokens, vocabulary) and labels (tokens) of what is learned.

    The head of the model sees only the positions before tokens that are learned: with a large
    vocabulary it is most of the work beside the layers. What models do after it, such as a cap on
    logits, is done to each by itself.
    """
    inputs = {name: tensor for name, tensor in batch.tensors.items() if name != "labels"}
    labels = batch.tensors["labels"][:, 1:]
    learned = labels != IGNORED
    before = pad(learned, (0, 1))  # nothing follows the last position

    def select(head: nn.Module, hidden: tuple[Tensor]) -> tuple[Tensor]:
        return (hidden[0][before],)

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        logits: Tensor = model(**inputs, use_cache=False).logits
    finally:
        hook.remove()
    return logits, labels[learned]
