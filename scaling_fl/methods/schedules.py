"""Learning rates over rounds: functions of the round alone, so a resumed run needs no state."""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]
"""Round, from 1 -> the learning rate of that round."""


def constant(first: float, final: float, num_rounds: int) -> Schedule:
    """Train with the first learning rate in every round."""
    return lambda round_number: first


def linear(first: float, final: float, num_rounds: int) -> Schedule:
    """In round r of R, train with first + (final - first) * r / R."""
    return lambda round_number: first + (final - first) * round_number / num_rounds


def cosine(first: float, final: float, num_rounds: int) -> Schedule:
    """In round r of R, train with final + (first - final) * (1 + cos(pi * r / R)) / 2.

    Source: arXiv 1608.03983, equation 5 without restarts.
    """

    def rate(round_number: int) -> float:
        return final + 0.5 * (first - final) * (1 + math.cos(math.pi * round_number / num_rounds))

    return rate


SCHEDULES: dict[str, Callable[[float, float, int], Schedule]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
}
"""(first, final, num_rounds) -> schedule."""
