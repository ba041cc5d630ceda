"""Learning rates over rounds: functions of the round alone, so a resumed run needs no state."""

import math
from collections.abc import Callable

Schedule = Callable[[float, float, int, int], float]
"""(first, final, round, num_rounds) -> learning rate of that round; rounds count from 1."""


def constant(first: float, final: float, round_number: int, num_rounds: int) -> float:
    """Keep the first learning rate."""
    return first


def linear(first: float, final: float, round_number: int, num_rounds: int) -> float:
    """Go from first to final in equal steps; the last round trains with the final one."""
    return first + (final - first) * round_number / num_rounds


def cosine(first: float, final: float, round_number: int, num_rounds: int) -> float:
    """Anneal along half a cosine; the last round trains with the final one.

    Source: arXiv 1608.03983, equation 5 without restarts.
    """
    return final + 0.5 * (first - final) * (1 + math.cos(math.pi * round_number / num_rounds))


SCHEDULES: dict[str, Schedule] = {"constant": constant, "linear": linear, "cosine": cosine}
