"""How much privacy a number of rounds costs, for the sampling really used; and its inverses.

Each round adds noise of standard deviation ``noise_multiplier * clip`` to every coordinate of a sum
of clipped updates and divides by a number that does not depend on the data. Rounds of an empty
cohort add noise and count like all others. What two neighbours are: ``sampling.neighbours``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scaling_fl.methods.privacy.losses import ORDERS, loss_distributions, renyi_divergences
from scaling_fl.methods.privacy.neighbours import Everyone, Sampling

AccountantKind = Literal["rdp", "pld"]

LEAST_NOISE = 0.01  # below it, epsilon is in the thousands and the library's series overflow
_MOST_NOISE = 2.0**40
_MOST_ROUNDS = 2**40
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Accountant:
    """Epsilon at ``delta`` after any number of equal rounds: no state, so a resumed run agrees.

    ``kind`` is "rdp" (Renyi divergences: the literature's usual numbers) or "pld" (privacy loss
    distributions: often 10 to 50 % lower, but seconds instead of fractions of one). Both are upper
    bounds for every sampling, under the sampling's ``neighbours``.

    Sources: ``privacy_losses``; from divergences to epsilon, arXiv 2004.00010, proposition 12;
    everyone with "pld" is exact, arXiv 1805.06530, theorem 8.
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
        if self.kind not in ("rdp", "pld"):
            raise ValueError(f"privacy.accountant must be rdp or pld, got {self.kind!r}.")

    def epsilon(self, num_rounds: int) -> float:
        """Compute epsilon after ``num_rounds`` rounds; what one round costs is computed once.

        Infinite for a noise multiplier below 0.01.
        """
        if num_rounds < 0:
            raise ValueError(f"num_rounds must be at least 0, got {num_rounds}.")
        if num_rounds == 0:
            return 0.0
        if self.noise_multiplier < LEAST_NOISE:
            return math.inf
        import dp_accounting  # takes over a second

        if self.kind == "rdp":
            spent = num_rounds * self._one_round_rdp
            return float(dp_accounting.rdp.compute_epsilon(ORDERS, spent, self.delta)[0])
        if isinstance(self.sampling, Everyone):  # Gaussians compose to a Gaussian
            std = self.noise_multiplier / math.sqrt(num_rounds)
            return float(dp_accounting.get_epsilon_gaussian(std, self.delta))
        composed = (loss.self_compose(num_rounds) for loss in self._one_round_losses)
        return float(min(loss.get_epsilon_for_delta(self.delta) for loss in composed))

    @cached_property
    def _one_round_rdp(self) -> NDArray[np.float64]:
        return renyi_divergences(self.sampling, self.noise_multiplier)

    @cached_property
    def _one_round_losses(self) -> list[Any]:
        return loss_distributions(self.sampling, self.noise_multiplier)


def solve_noise_multiplier(
    target_epsilon: float,
    *,
    num_rounds: int,
    delta: float,
    sampling: Sampling,
    accountant: AccountantKind = "rdp",
) -> float:
    """Find by bisection the least noise multiplier whose epsilon does not exceed the target.

    Its epsilon is at most the target and within 0.1 % of it, except where epsilon jumps (Renyi
    bounds below about 0.004) or would need a multiplier below 0.01. With adaptive clipping, pass
    the result on to ``privacy.update_noise_multiplier``.

    Raises:
        ValueError: when the target is not above 0 or no noise up to 2**40 reaches it.
    """
    if not 0 < target_epsilon < math.inf:
        raise ValueError(
            "privacy.target_epsilon must be a finite number above 0, got "
            f"{target_epsilon}; 8 is weak."
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
    """Find the largest number of rounds whose epsilon does not exceed ``max_epsilon``.

    0 when one round is too many; at most 2**40.
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
    """Find two noise multipliers, a factor of 2 apart, of which only the larger suffices."""
    high = 1.0
    if spent(high) <= target:
        while spent(high / 2) <= target:  # ends below 0.01, where epsilon is infinite
            high /= 2
        return high / 2, high
    while spent(high) > target:
        high *= 2
        if high > _MOST_NOISE:
            raise ValueError(
                f"privacy.target_epsilon={target} is out of reach of any noise; raise it or "
                "privacy.delta."
            )
    return high / 2, high
