"""Evaluation against scikit-learn; what workers count adds up to what one of them counts."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_recall_fscore_support
from torch import Tensor, nn

from scaling_fl.learning.tasks.classification.scoring import count, metrics, num_counts
from tests.tiny_models import make_batch


class Table(nn.Module):
    """A model that looks its logits up: the first token of a text is its row."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, *, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits[input_ids[:, 0]])


def make(num_examples: int, num_labels: int, seed: int) -> tuple[Tensor, Tensor]:
    """Make logits and labels; not every label needs to occur or to be answered."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(num_examples, num_labels, generator=generator)
    return logits, torch.randint(num_labels, (num_examples,), generator=generator)


def counted(
    logits: Tensor, labels: Tensor, size: int = 4, *, rank: int = 0, workers: int = 1
) -> Tensor:
    """Add up the counts of one worker's batches."""
    model, total = Table(logits), torch.zeros(num_counts(logits.shape[1]), dtype=torch.int64)
    for rows in torch.arange(len(labels)).split(size)[rank::workers]:
        batch = make_batch(rows[:, None], torch.ones(len(rows), 1), labels[rows])
        total += count(model, batch)
    return total


def evaluate(
    logits: Tensor, labels: Tensor, size: int = 4, *, per_class: bool = True
) -> dict[str, float]:
    num_labels = logits.shape[1]
    names = [f"c{i}" for i in range(num_labels)]
    return metrics(counted(logits, labels, size), names, per_class=per_class)


@settings(max_examples=40)
@given(
    num_examples=st.integers(1, 40),
    num_labels=st.integers(2, 12),
    size=st.integers(1, 9),
    seed=st.integers(0, 999),
)
def test_equals_scikit_learn(num_examples: int, num_labels: int, size: int, seed: int) -> None:
    logits, labels = make(num_examples, num_labels, seed)
    found = evaluate(logits, labels, size)
    names = list(range(num_labels))
    answers = logits.argmax(-1)
    assert found["accuracy"] == accuracy_score(labels, answers)
    macro = f1_score(labels, answers, average="macro", zero_division=0)
    assert found["f1_macro"] == pytest.approx(macro)
    loss = log_loss(labels, logits.double().softmax(-1), labels=names)
    assert found["loss"] == pytest.approx(loss, rel=1e-5, abs=1e-6)
    scores = precision_recall_fscore_support(labels, answers, labels=names, zero_division=0)
    for kind, values in zip(("precision", "recall", "f1"), scores, strict=False):
        known = sorted({*labels.tolist(), *answers.tolist()})
        assert [name for name in found if name.startswith(f"{kind}.")] == [
            f"{kind}.c{i}" for i in known
        ]
        assert np.allclose([found[f"{kind}.c{i}"] for i in known], values[known])


def test_classes_are_reported_on_request_alone() -> None:
    found = evaluate(*make(20, 3, 1), per_class=False)
    assert sorted(found) == ["accuracy", "f1_macro", "loss"]
    assert len(evaluate(*make(20, 3, 1))) == 3 + 3 * 3


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_shards_add_up_to_the_whole_exactly(workers: int) -> None:
    logits, labels = make(50, 4, 2)
    whole = counted(logits, labels)
    shards = [counted(logits, labels, rank=rank, workers=workers) for rank in range(workers)]
    assert torch.equal(sum(shards, torch.zeros_like(whole)), whole)
    assert whole.dtype == torch.int64


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])
def test_a_model_that_has_diverged_has_an_infinite_loss(bad: float) -> None:
    logits, labels = make(20, 3, 3)
    logits[7] = torch.tensor([0.0, 0.0, 0.0])
    logits[7, (labels[7] + 1) % 3] = bad
    found = evaluate(logits, labels)
    assert found["loss"] == math.inf
    assert 0 <= found["accuracy"] <= 1
