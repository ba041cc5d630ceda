"""A run that learned nothing is told so, with the likely setting; one that learns never is."""

import math
from typing import Any

import pytest

from scaling_fl.config import defaults
from scaling_fl.reporting.learned import why_nothing_was_learned

FOUR = {"metrics": {"accuracy": 0.27, "loss": math.log(4)}, "num_examples": 800}
"""Four labels, almost evenly spread, 800 test examples: the standard error is 0.016."""
SKEWED = {"metrics": {"accuracy": 0.9, "loss": 0.325}, "num_examples": 1000}
UNKNOWN = {"metrics": {}, "num_examples": 10}


def judge(
    accuracy: list[float],
    loss: list[float],
    train: list[float],
    baseline: dict[str, Any] | None = FOUR,
    **settings: Any,
) -> str | None:
    curves = {"validation.accuracy": accuracy, "validation.loss": loss, "train.loss": train}
    metrics = {
        name: {"steps": list(range(1, len(values) + 1)), "values": values}
        for name, values in curves.items()
        if values
    }
    return why_nothing_was_learned(metrics, baseline, {**defaults(), **settings})


LEARNING: dict[str, tuple[Any, ...]] = {
    "the demo": ([0.84, 0.86, 0.875], [0.51, 0.42, 0.38], [0.99, 0.6, 0.49]),
    "slowly, as seen on the first two of many rounds": (
        [0.31, 0.38], [1.38, 1.365], [1.41, 1.372],
    ),
    "the loss first, while the commonest label is still answered": (
        [0.9, 0.9], [0.31, 0.30], [0.34, 0.31], SKEWED,
    ),
    "accuracy with an overconfident loss": ([0.7, 0.8], [1.9, 2.4], [0.3, 0.1]),
    "already, where it begins, and no more": ([0.9, 0.9, 0.9], [0.4, 0.41, 0.42], [0.1, 0.1, 0.1]),
    "a task without a baseline": ([], [3.0, 2.0], [3.0, 2.0], UNKNOWN),
    "as far as an old journal says": ([0.3, 0.3], [1.0, 0.9], [1.0, 0.9], None),
    "one round, which nothing can be said of": ([0.27], [1.4], [1.4]),
    "with noise, when nothing is known but the evaluation": ([0.3, 0.4], [1.38, 1.3], []),
}  # fmt: skip
STUCK: dict[str, tuple[Any, ...]] = {
    "at the commonest label": ([0.27, 0.27], [1.39, 1.388], [1.40, 1.399]),
    "at a lucky head that never changes": ([0.33, 0.33, 0.331], [1.4, 1.4, 1.4], [1.4, 1.4, 1.4]),
    "below it": ([0.2, 0.21], [1.5, 1.45], [1.6, 1.5]),
    "a skewed task": ([0.9, 0.9], [0.33, 0.328], [0.4, 0.33], SKEWED),
    "a task without a baseline": ([], [3.0, 3.0], [3.0, 2.999], UNKNOWN),
    "an old journal": ([0.27, 0.27], [1.39, 1.39], [1.4, 1.4], None),
    "with noise": ([0.27, 0.26], [1.4, 1.41], []),
}


@pytest.mark.parametrize("name", sorted(LEARNING))
def test_a_run_that_learns_is_left_in_peace(name: str) -> None:
    assert judge(*LEARNING[name]) is None


@pytest.mark.parametrize("name", sorted(STUCK))
def test_a_run_that_learns_nothing_is_told_so(name: str) -> None:
    sentence = judge(*STUCK[name])
    assert sentence
    assert sentence.startswith("nothing was learned that can be seen: ")
    assert "learning_rate=2e-05 with optimiser=sgd hardly moves a model" in sentence


def test_the_sentence_names_what_was_found() -> None:
    assert judge(*STUCK["at the commonest label"]) == (
        "nothing was learned that can be seen: accuracy is 0.2700, that of always answering the "
        "commonest label is 0.2700, and the validation loss (1.3880) is not below that of ignoring "
        "the texts (1.3863); learning_rate=2e-05 with optimiser=sgd hardly moves a model: try "
        "optimiser=adamw learning_rate=1e-3."
    )


@pytest.mark.parametrize(
    ("settings", "losses", "remedy"),
    [
        ({"optimiser": "adamw", "learning_rate": 0.5}, [1.4, 9.0], "lower learning_rate"),
        ({"optimiser": "sgd", "momentum": 0.999}, [1.4, 1.4], "try another learning_rate"),
        ({"optimiser": "adamw"}, [1.4, 1.4], "is little for a model: try 1e-4"),
        (
            {"optimiser": "adamw", "adapter": {"kind": "lora"}, "learning_rate": 1e-4},
            [1.4, 1.4],
            "is little for an adapter: try 1e-3",
        ),
        (
            {"optimiser": "adamw", "privacy": {"noise_multiplier": 1.0}},
            [1.4, 1.4],
            "the noise may drown the updates",
        ),
        ({"optimiser": "adamw", "learning_rate": 1e-3}, [1.4, 1.4], "more num_rounds"),
    ],
)
def test_the_likely_setting_is_named(settings: Any, losses: list[float], remedy: str) -> None:
    sentence = judge([0.27, 0.27], losses, losses, FOUR, **settings)
    assert sentence
    assert remedy in sentence
