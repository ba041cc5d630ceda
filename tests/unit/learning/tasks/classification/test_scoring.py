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

from scaling_fl.learning.tasks.classification.scoring import count, metrics
from scaling_fl.learning.text.batches import Batch

CPU = torch.device("cpu")


class Table(nn.Module):
    """A model that looks its logits up: the first token of a text is its row."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits
        self.modes: list[bool] = []

    def forward(self, *, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        self.modes.append(self.training or torch.is_grad_enabled())
        return SimpleNamespace(logits=self.logits[input_ids[:, 0]])


def make(num_examples: int, num_labels: int, seed: int) -> tuple[Tensor, Tensor]:
    """Make logits and labels; not every label needs to occur or to be answered."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(num_examples, num_labels, generator=generator)
    return logits, torch.randint(num_labels, (num_examples,), generator=generator)


def batches_of(labels: Tensor, size: int) -> list[Batch]:
    rows = torch.arange(len(labels))
    return [
        Batch(part[:, None], torch.ones(len(part), 1, dtype=torch.int64), labels[part])
        for part in rows.split(size)
    ]


def evaluate(
    logits: Tensor, labels: Tensor, size: int = 4, *, per_class: bool = True
) -> dict[str, float]:
    num_labels = logits.shape[1]
    counts = count(Table(logits), batches_of(labels, size), num_labels=num_labels, device=CPU)
    return metrics(counts, [f"c{i}" for i in range(num_labels)], per_class=per_class)


@settings(max_examples=40)
@given(
    num_examples=st.integers(1, 40),
    num_labels=st.integers(2, 6),
    size=st.integers(1, 9),
    seed=st.integers(0, 999),
)
def test_equals_scikit_learn(num_examples: int, num_labels: int, size: int, seed: int) -> None:
    logits, labels = make(num_examples, num_labels, seed)
    found = evaluate(logits, labels, size)
    names = list(range(num_labels))
    answers = logits.argmax(-1)
    assert found["validation.accuracy"] == accuracy_score(labels, answers)
    macro = f1_score(labels, answers, labels=names, average="macro", zero_division=0)
    assert found["validation.f1_macro"] == pytest.approx(macro)
    loss = log_loss(labels, logits.double().softmax(-1), labels=names)
    assert found["validation.loss"] == pytest.approx(loss, rel=1e-5, abs=1e-6)
    scores = precision_recall_fscore_support(labels, answers, labels=names, zero_division=0)
    for kind, values in zip(("precision", "recall", "f1"), scores, strict=False):
        ours = [found[f"validation.{kind}.c{i}"] for i in names]
        assert np.allclose(ours, values)


def test_classes_are_reported_on_request_alone() -> None:
    found = evaluate(*make(20, 3, 1), per_class=False)
    assert sorted(found) == ["validation.accuracy", "validation.f1_macro", "validation.loss"]
    assert len(evaluate(*make(20, 3, 1))) == 3 + 3 * 3


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_shards_add_up_to_the_whole_exactly(workers: int) -> None:
    logits, labels = make(50, 4, 2)
    batches = batches_of(labels, 4)
    whole = count(Table(logits), batches, num_labels=4, device=CPU)
    shards = [
        count(Table(logits), batches[rank::workers], num_labels=4, device=CPU)
        for rank in range(workers)
    ]
    assert torch.equal(sum(shards, torch.zeros_like(whole)), whole)
    assert whole.dtype == torch.int64


def test_a_worker_without_batches_counts_nothing() -> None:
    assert count(Table(torch.zeros(1, 3)), [], num_labels=3, device=CPU).tolist() == [0] * 11


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])
def test_a_model_that_has_diverged_has_an_infinite_loss(bad: float) -> None:
    logits, labels = make(20, 3, 3)
    logits[7] = torch.tensor([0.0, 0.0, 0.0])
    logits[7, (labels[7] + 1) % 3] = bad
    found = evaluate(logits, labels)
    assert found["validation.loss"] == math.inf
    assert 0 <= found["validation.accuracy"] <= 1


def test_the_model_evaluates_without_dropout_and_gradients() -> None:
    table = Table(torch.zeros(5, 3))
    table.train()
    count(table, batches_of(torch.zeros(5, dtype=torch.int64), 2), num_labels=3, device=CPU)
    assert table.modes == [False] * 3
