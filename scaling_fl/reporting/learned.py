"""Say when a run has learned nothing that can be seen, from what its record holds.

A run has learned when one of these holds (they cost no model that learns an alarm):

1. its least validation loss is 2 % below that of a model that does not look at its input (of a
   classifier: the entropy of the test labels);
2. its best accuracy is more than three standard errors above that of the commonest label, and it
   came of training: accuracy rose by two standard errors, or the training loss fell by 1 %;
3. its task knows no such model, and its training loss has fallen by 1 %.

A run of one round, and one whose metrics do not say (as they may not, with privacy), is not judged.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

_CLEARLY_LOWER = 0.98
_FALLEN = 0.99


def why_nothing_was_learned(
    metrics: Mapping[str, Any], baseline: Mapping[str, Any] | None, config: Mapping[str, Any]
) -> str | None:
    """Return a sentence with the likely setting; None: the run has learned, or cannot be judged.

    ``metrics`` are series by name, ``baseline`` has the ``metrics`` (accuracy, loss) of a model
    that does not look at its input and the ``num_examples`` of the test data, ``config`` holds the
    settings as they are stored.
    """
    losses, accuracies = (_values(metrics, f"validation.{n}") for n in ("loss", "accuracy"))
    training = _values(metrics, "train.loss")
    if max(len(losses), len(training)) < 2:
        return None
    falls = len(training) > 1 and min(training[1:]) < _FALLEN * training[0]
    of_ignorance = (baseline or {}).get("metrics", {})
    if not ("loss" in of_ignorance and losses):
        if falls or len(training) < 2:
            return None
        found = f"the training loss did not fall ({training[0]:.4f}, then {training[-1]:.4f})"
        return _sentence(found, training, config)
    if min(losses) < _CLEARLY_LOWER * of_ignorance["loss"]:
        return None
    least = of_ignorance.get("accuracy")
    if accuracies and least is not None and baseline:
        error = math.sqrt(least * (1 - least) / max(1, baseline["num_examples"]))
        rises = max(accuracies) - accuracies[0] > 2 * error
        if max(accuracies) > least + 3 * error and (rises or falls):
            return None
    if accuracies and least is not None:
        found = (
            f"accuracy is {accuracies[-1]:.4f}, that of always answering the commonest label is "
            f"{least:.4f}, and the validation loss ({losses[-1]:.4f}) is not below that of "
            f"ignoring the texts ({of_ignorance['loss']:.4f})"
        )
    else:
        found = (
            f"the validation loss ({losses[-1]:.4f}) is not below that of a model that ignores its "
            f"input ({of_ignorance['loss']:.4f})"
        )
    return _sentence(found, training or losses, config)


def _sentence(found: str, losses: Sequence[float], config: Mapping[str, Any]) -> str:
    return f"nothing was learned that can be seen: {found}; {likely_remedy(config, losses)}."


def likely_remedy(config: Mapping[str, Any], losses: Sequence[float] = ()) -> str:
    """Name the setting that most likely keeps a run from learning, and what to try."""
    rate, optimiser = float(config["learning_rate"]), config["optimiser"]
    if losses and not losses[-1] < 1.1 * losses[0]:
        return f"lower learning_rate, which is {rate:g}, because the loss rises"
    momentum = float(config.get("momentum") or 0.0)
    if optimiser == "sgd" and rate / (1 - momentum) < 0.01:
        return (
            f"learning_rate={rate:g} with optimiser=sgd hardly moves a model: try optimiser=adamw "
            "learning_rate=1e-3"
        )
    privacy = config.get("privacy") or {}
    if privacy.get("noise_multiplier") or privacy.get("target_epsilon") is not None:
        return "the noise may drown the updates: raise clients_per_round, or lower privacy.clip"
    adapts = (config.get("adapter") or {}).get("kind") not in (None, "none")
    if optimiser != "sgd" and rate < (3e-4 if adapts else 5e-5):
        what = "an adapter" if adapts else "a model"
        return f"learning_rate={rate:g} is little for {what}: try {'1e-3' if adapts else '1e-4'}"
    return f"try another learning_rate than {rate:g}, or more num_rounds"


def _values(metrics: Mapping[str, Any], name: str) -> list[float]:
    values = metrics[name]["values"] if name in metrics else []
    return [float(value) for value in values if value is not None]
