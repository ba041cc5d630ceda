"""The loss of an answer, and its evaluation as integers that add up exactly."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from scaling_fl.learning.losses import count_losses, mean_loss
from scaling_fl.learning.models.documents import (
    answer_logits,
    read_page,
    start_token,
    write_answers,
)
from scaling_fl.learning.models.vision import Looks
from scaling_fl.learning.task import Batch, BatchLoss
from scaling_fl.learning.tasks.documents.anls import anls, is_exact
from scaling_fl.learning.tasks.documents.encoding import read_back

IGNORED = -100
"""The label of what is not learned, as everywhere in transformers."""
MOST_WRITTEN = 20
"""Tokens of an answer, the end included: what the competition's code came to by a default."""
NUM_COUNTS = 6
_UNIT = 2**32
_PAGES_AT_ONCE = 16


def loss(model: nn.Module, batch: Batch, looks: Looks) -> BatchLoss:
    """Take the cross-entropy of the tokens of all answers, the mean over these tokens.

    ``token_accuracy`` counts those that the model finds most likely.
    """
    logits, labels = _learned(model, _page(model, batch, looks), batch.tensors["labels"])
    right = (logits.detach().argmax(-1) == labels).sum()
    return BatchLoss(cross_entropy(logits, labels), len(labels), {"token_accuracy": right})


def count(model: nn.Module, batch: Batch, looks: Looks, tokenizer: Any) -> Tensor:
    """Evaluate answers.

    Returns int64 of size 6: the summed loss of the tokens in units of 2**-32, their number, how
    many have a loss that is not usable, the number of questions, how many answers are right, and
    the summed ANLS in units of 2**-32.
    """
    parts = [_count(model, part, looks, tokenizer) for part in _parts(batch)]
    return torch.stack(parts).sum(0)


def metrics(counts: Tensor) -> dict[str, float]:
    """Turn total counts into the mean loss of a token, and accuracy and ANLS of the answers."""
    summed, tokens, unusable, questions, right, similarity = (int(value) for value in counts)
    return {
        "loss": mean_loss(summed, unusable, tokens),
        "accuracy": right / max(questions, 1),
        "anls": similarity / _UNIT / max(questions, 1),
    }


def count_answers(answers: list[list[str]], said: list[str]) -> list[int]:
    """Return how many answers are right, and their summed ANLS in units of 2**-32."""
    pairs = list(zip(answers, said, strict=True))
    similarity = sum(round(anls(expected, text) * _UNIT) for expected, text in pairs)
    return [sum(is_exact(expected, text) for expected, text in pairs), similarity]


def _count(model: nn.Module, batch: Batch, looks: Looks, tokenizer: Any) -> Tensor:
    page = _page(model, batch, looks)
    logits, labels = _learned(model, page, batch.tensors["labels"])
    summed, unusable = count_losses(cross_entropy(logits, labels, reduction="none"))
    rows = write_answers(model, page, end=tokenizer.eos_token_id, most=MOST_WRITTEN)
    said = tokenizer.batch_decode(rows, skip_special_tokens=True)
    answers = [read_back(row.numpy()) for row in batch.tensors["answers"].cpu()]
    found = [len(labels), len(batch), *count_answers(answers, said)]
    tokens, questions, right, similarity = labels.new_tensor(found)
    return torch.stack([summed, tokens, unusable, questions, right, similarity])


def _parts(batch: Batch) -> Iterator[Batch]:
    """Cut a batch of any size into some pages each, less the columns that are padding in all."""
    for begin in range(0, len(batch), _PAGES_AT_ONCE):
        rows = slice(begin, begin + _PAGES_AT_ONCE)
        tensors = {name: tensor[rows] for name, tensor in batch.tensors.items()}
        width = int(tensors["attention_mask"].any(0).sum())
        for name in ("input_ids", "boxes", "attention_mask"):
            tensors[name] = tensors[name][:, :width]
        yield Batch(tensors, batch.indices[rows])


def _page(model: nn.Module, batch: Batch, looks: Looks) -> tuple[Tensor, Tensor]:
    given = batch.tensors
    seen = looks.normalised(given["pixels"].permute(0, 3, 1, 2).float() / 255)
    return read_page(model, given["input_ids"], given["boxes"], given["attention_mask"], seen)


def _learned(
    model: nn.Module, page: tuple[Tensor, Tensor], labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the logits (tokens, vocabulary) and labels (tokens) of all answers."""
    start = labels.new_full((len(labels), 1), start_token(model))
    before = torch.cat([start, labels[:, :-1]], dim=1)
    before = before.masked_fill(before == IGNORED, 0)  # behind the end, where nothing is learned
    logits = answer_logits(model, page, before, use_cache=False).logits
    learned = labels != IGNORED
    return logits[learned].float(), labels[learned]
