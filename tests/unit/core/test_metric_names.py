"""A metric of everything is told from those of classes, subjects and tiers."""

import pytest

from scaling_fl.core.metric_names import is_of_all


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("validation.loss", True),
        ("train.accuracy", True),
        ("validation.mmlu.accuracy", True),
        ("download.mmlu.accuracy_norm", True),
        ("validation.f1.sport", False),
        ("validation.accuracy.tier0", False),
        ("validation.mmlu.accuracy.law", False),
        ("validation.mmlu.accuracy.tier1", False),
    ],
)
def test_a_file_of_questions_is_no_class(name: str, expected: bool) -> None:
    assert is_of_all(name) == expected
