"""The table of classes says what scikit-learn's report says."""

import numpy as np
import torch
from sklearn.metrics import classification_report

from scaling_fl.learning.tasks.classification.scoring import metrics
from scaling_fl.reporting.evaluation import class_table, metrics_text

LABELS = ["World", "Sports", "Business", "Sci/Tech"]


def test_the_table_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    labels = rng.choice(4, size=200, p=[0.5, 0.3, 0.2, 0.0])  # no text is of the last
    answers = np.where(rng.random(200) < 0.6, labels, rng.integers(0, 3, 200))
    counts = torch.zeros(4 * 4 + 2, dtype=torch.int64)
    for label, answer in zip(labels, answers, strict=True):
        counts[label * 4 + answer] += 1
    scores = metrics(counts, LABELS, per_class=True)
    found = {f"validation.{name}": value for name, value in scores.items()}
    table = class_table(found, LABELS, np.bincount(labels, minlength=4).tolist())
    report = classification_report(
        labels, answers, target_names=LABELS[:3], output_dict=True, zero_division=0
    )
    head, *rows = [line.split() for line in table.splitlines()]
    assert head == ["class", "precision", "recall", "f1", "examples"]
    assert rows.pop(3) == ["Sci/Tech", "-", "-", "-", "0"]
    for row, name in zip(rows, [*LABELS[:3], "macro avg"], strict=True):
        expected = [report[name][kind] for kind in ("precision", "recall", "f1-score")]
        assert row[1:] == [
            *(f"{value:.4f}" for value in expected),
            f"{report[name]['support']:.0f}",
        ]
    assert [row[0] for row in rows] == [*LABELS[:3], "mean"]
    assert rows[-1][3] == f"{scores['f1_macro']:.4f}"
    assert len({len(line) for line in table.splitlines()}) == 1


def test_metrics_keep_all_their_digits() -> None:
    values = {"validation.loss": 1 / 3, "validation.accuracy": 0.1 + 0.2}
    shown = dict(line.split() for line in metrics_text(values).splitlines())
    assert {name: float(value) for name, value in shown.items()} == values
