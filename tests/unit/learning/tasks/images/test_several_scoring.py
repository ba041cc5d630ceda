"""Average precision from counts: scikit-learn's, for the rounded scores exactly."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from scaling_fl.learning.tasks.images.several_scoring import count_of, metrics, steps_of

NAMES = ["fire", "food", "games", "light", "music"]


def scores(num: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw logits that say something of the marks, of which each label has its own share."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.tensor([0.5, 0.2, 0.05, 0.01, 0.3])
    marks = (torch.rand(num, 5, generator=generator) < shares).long()
    return torch.randn(num, 5, generator=generator) * 2 + 1.5 * marks - 2, marks


def test_metrics_are_those_of_scikit_learn_for_rounded_scores() -> None:
    logits, marks = scores(4000, 0)
    found = metrics(count_of(logits, marks), NAMES, per_class=True)
    rounded, truth = steps_of(logits).numpy(), marks.numpy()
    for way in ("macro", "micro"):
        expected = average_precision_score(truth, rounded, average=way)
        assert found[f"average_precision_{way}"] == pytest.approx(expected, abs=1e-12)
        expected = f1_score(truth, rounded >= 2**13, average=way)
        assert found[f"f1_{way}"] == pytest.approx(expected, abs=1e-12)
    for number, name in enumerate(NAMES):
        alone = average_precision_score(truth[:, number], rounded[:, number])
        assert found[f"average_precision.{name}"] == pytest.approx(alone, abs=1e-12)
    loss = float(binary_cross_entropy_with_logits(logits, marks.float()))
    assert found["loss"] == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_rounding_moves_average_precision_by_less_than_a_thousandth(seed: int) -> None:
    logits, marks = scores(4000, seed)
    found = metrics(count_of(logits, marks), NAMES, per_class=False)
    for way in ("macro", "micro"):
        exact = average_precision_score(marks.numpy(), logits.numpy(), average=way)
        assert abs(found[f"average_precision_{way}"] - exact) < 1e-3


def test_counts_add_up_over_any_batches_exactly() -> None:
    logits, marks = scores(500, 1)
    whole = count_of(logits, marks)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(2))
    for size in (1, 7, 499):
        parts = [count_of(logits[part], marks[part]) for part in order.split(size)]
        added = torch.stack(parts).sum(0)
        assert torch.equal(added[:-2], whole[:-2])
        assert abs(int(added[-2] - whole[-2])) < 500 * 512, "each loss is rounded by itself"


def test_labels_that_do_not_occur_are_left_out_of_the_mean() -> None:
    logits, marks = scores(300, 3)
    marks[:, 2] = 0
    logits[:, 2] = -5
    found = metrics(count_of(logits, marks), NAMES, per_class=True)
    kept = [0, 1, 3, 4]
    rounded, truth = steps_of(logits).numpy()[:, kept], marks.numpy()[:, kept]
    expected = average_precision_score(truth, rounded, average="macro")
    assert found["average_precision_macro"] == pytest.approx(expected, abs=1e-12)
    assert "average_precision.games" not in found
    assert "f1.games" not in found


def test_scores_without_limits_and_none_at_all_are_counted() -> None:
    logits = torch.tensor([[1e9, -1e9, float("inf"), float("-inf"), float("nan")]])
    assert steps_of(logits).tolist() == [[2**14 - 1, 0, 2**14 - 1, 0, 0]]
    counts = count_of(logits, torch.ones(1, 5, dtype=torch.int64))
    found = metrics(counts, NAMES, per_class=False)
    assert found["loss"] == float("inf")
    assert np.isfinite(found["average_precision_macro"])
