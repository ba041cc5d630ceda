"""Epsilon after a number of rounds, for the sampling that is really used; and the inverses.

In each round, the sum of clipped updates gets noise of standard deviation ``noise_multiplier *
clip`` on every coordinate, and is divided by a number that does not depend on the data. A round
with an empty cohort also adds noise, and counts. ``sampling.neighbours`` defines two neighbours.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

from scaling_fl.methods.privacy.losses import ORDERS, loss_distributions, renyi_divergences
from scaling_fl.methods.privacy.neighbours import Everyone, Sampling

AccountantKind = Literal["rdp", "pld"]

LEAST_NOISE = 0.01  # below it, epsilon is above 1000 and the series of the library overflow
_MOST_NOISE = 2.0**40
_MOST_ROUNDS = 2**40
_TOLERANCE = 1e-3


Epsilon = Callable[[int], float]
"""Number of rounds, at least 1 -> epsilon."""


def rdp(noise_multiplier: float, delta: float, sampling: Sampling) -> Epsilon:
    """Bound epsilon by Renyi divergences, the usual numbers of the literature.

    Source: arXiv 2004.00010, proposition 12 (from divergences to epsilon).
    """
    import dp_accounting  # takes over a second

    one_round = renyi_divergences(sampling, noise_multiplier)

    def epsilon(num_rounds: int) -> float:
        spent = num_rounds * one_round
        return float(dp_accounting.rdp.compute_epsilon(ORDERS, spent, delta)[0])

    return epsilon


def pld(noise_multiplier: float, delta: float, sampling: Sampling) -> Epsilon:
    """Bound epsilon by privacy loss distributions: often 10 to 50 % lower, but takes seconds.

    Source: arXiv 1805.06530, theorem 8 (exact for Everyone).
    """
    import dp_accounting

    if isinstance(sampling, Everyone):  # Gaussians compose to a Gaussian
        return lambda num_rounds: float(
            dp_accounting.get_epsilon_gaussian(noise_multiplier / math.sqrt(num_rounds), delta)
        )
    one_round = loss_distributions(sampling, noise_multiplier)

    def epsilon(num_rounds: int) -> float:
        composed = (loss.self_compose(num_rounds) for loss in one_round)
        return float(min(loss.get_epsilon_for_delta(delta) for loss in composed))

    return epsilon


ACCOUNTANTS: dict[str, Callable[[float, float, Sampling], Epsilon]] = {"rdp": rdp, "pld": pld}
"""(noise_multiplier, delta, sampling) -> epsilon; both are upper bounds for every sampling."""


@dataclass(frozen=True)
class Accountant:
    """Epsilon at ``delta`` after any number of equal rounds, by one of ``ACCOUNTANTS``.

    It has no state, so a resumed run reports the same epsilon.
    """

    noise_multiplier: float
    delta: float
    sampling: Sampling
    kind: AccountantKind = "rdp"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier >= 0):
            raise ValueError(
                "privacy.noise_multiplier must be a finite number of at least 0, got "
                f"{self.noise_multiplier}; 1.0 is a usual start."
            )
        if not 0 < self.delta < 1:
            raise ValueError(
                f"privacy.delta must be in (0, 1), got {self.delta}; "
                "use less than 1 / number of clients."
            )
        if self.kind not in ACCOUNTANTS:
            raise ValueError(f"privacy.accountant must be rdp or pld, got {self.kind!r}.")

    def epsilon(self, num_rounds: int) -> float:
        """Return epsilon after ``num_rounds`` rounds; infinite for noise below ``LEAST_NOISE``."""
        if num_rounds < 0:
            raise ValueError(f"num_rounds must be at least 0, got {num_rounds}.")
        if num_rounds == 0:
            return 0.0
        if self.noise_multiplier < LEAST_NOISE:
            return math.inf
        return self._epsilon(num_rounds)

    @cached_property
    def _epsilon(self) -> Epsilon:
        return ACCOUNTANTS[self.kind](self.noise_multiplier, self.delta, self.sampling)


def solve_noise_multiplier(
    target_epsilon: float,
    *,
    num_rounds: int,
    delta: float,
    sampling: Sampling,
    accountant: AccountantKind = "rdp",
) -> float:
    """Find by bisection the smallest noise multiplier with an epsilon of at most the target.

    The epsilon is at most 0.1 % below the target, except where epsilon jumps (Renyi bounds below
    about 0.004), or where the target would need a multiplier below ``LEAST_NOISE``. With adaptive
    clipping, ``mechanism.update_noise_multiplier`` takes the result.

    Raises:
        ValueError: the target is not above 0, or no noise multiplier up to 2**40 reaches it.
    """
    if not 0 < target_epsilon < math.inf:
        raise ValueError(
            "privacy.target_epsilon must be a finite number above 0, got "
            f"{target_epsilon}; for example 8, which is weak privacy."
        )

    @cache
    def spent(noise: float) -> float:
        return Accountant(noise, delta, sampling, accountant).epsilon(num_rounds)

    low, high = _noise_bracket(target_epsilon, spent)
    while spent(high) < target_epsilon * (1 - _TOLERANCE) and high > low * (1 + 1e-6):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if spent(middle) <= target_epsilon else (middle, high)
    return high


def max_rounds(
    max_epsilon: float,
    *,
    noise_multiplier: float,
    delta: float,
    sampling: Sampling,
    accountant: AccountantKind = "rdp",
) -> int:
    """Find the largest number of rounds with an epsilon of at most ``max_epsilon``.

    Returns 0 when one round costs more; at most 2**40.
    """
    spent = Accountant(noise_multiplier, delta, sampling, accountant).epsilon
    low, high = 0, 1
    while spent(high) <= max_epsilon:
        if high >= _MOST_ROUNDS:
            return high
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if spent(middle) <= max_epsilon else (low, middle)
    return low


def _noise_bracket(target: float, spent: Callable[[float], float]) -> tuple[float, float]:
    """Find x such that noise multiplier x keeps to the target and x / 2 does not: (x / 2, x)."""
    high = 1.0
    if spent(high) <= target:
        while spent(high / 2) <= target:  # ends below 0.01, where epsilon is infinite
            high /= 2
        return high / 2, high
    while spent(high) > target:
        high *= 2
        if high > _MOST_NOISE:
            raise ValueError(
                f"privacy.target_epsilon must be large enough for some noise, got {target}; raise "
                "privacy.target_epsilon or privacy.delta."
            )
    return high / 2, high
