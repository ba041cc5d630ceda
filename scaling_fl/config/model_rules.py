"""The rule about where a model is: what is trained has weights."""

from scaling_fl.config.problems import Problem
from scaling_fl.core.outlines import outline_of


def weights_problem(model: str) -> Problem | None:
    """Say that a model has no weights; None where it may have some."""
    if outline_of(model) is None:
        return None
    rule = "must have weights, which only scripts/plan.py does without"
    remedy = "give the folder or the id of the whole model"
    return Problem("model", rule, f"{model!r}, a config.json without weights", remedy)
