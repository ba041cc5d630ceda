"""The privacy cost of one round of sampling, clipping and noise: upper bounds by dp-accounting.

Each bound holds for the neighbouring relation of its sampling (see ``neighbours``). The noise has
standard deviation ``noise_multiplier * clip`` on every coordinate of the sum of clipped updates.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_fl.methods.privacy.neighbours import Everyone, FixedSize, Nested, Poisson, Sampling

ORDERS: NDArray[np.float64] = np.array(
    [1 + tenth / 10 for tenth in range(1, 100)] + [*range(11, 64)] + [128, 256, 512, 1024],
    dtype=np.float64,
)
"""The Renyi orders of dp-accounting; they include those of Opacus (1.1 to 10.9, 12 to 63)."""

_ROUNDING = 1e-13  # rounding may turn a small cost into one below 0, which would count as no cost
_TAIL = 8.5  # standard deviations, beyond which a normal number is with a probability of 1e-17
_INTERVAL = 1e-4  # of the grid of privacy losses; a coarser grid gives a looser, still sound bound


def renyi_divergences(sampling: Sampling, noise_multiplier: float) -> NDArray[np.float64]:
    """Bound one round's Renyi divergences at ``ORDERS``, in nats; infinite where no bound is known.

    Sources: arXiv 1702.07476, corollary 3 (Everyone); 1908.10530, section 3.3 (Poisson);
    1808.00087, theorem 27 (FixedSize). For fractional orders, dp-accounting adds the absolute
    values of a series with signs. The bound stays sound; in the settings of the seeds, epsilon is
    at most 5 % larger.

    dp-accounting takes the noise relative to the *sensitivity*, although its documentation says
    relative to the clip (issue 378 of google/differential-privacy). To replace a client has the
    sensitivity 2 * clip, so the noise multiplier is halved.
    """
    import dp_accounting as dp

    if isinstance(sampling, Nested):
        of_groups = renyi_divergences(sampling.groups, noise_multiplier)
        return _with_probability(sampling.client_rate, of_groups)
    gaussian = dp.GaussianDpEvent(_noise_per_sensitivity(sampling, noise_multiplier))
    if isinstance(sampling, FixedSize):
        sampled = dp.SampledWithoutReplacementDpEvent(
            sampling.num_total, sampling.num_sampled, gaussian
        )
        # For large samples and little noise, the bound without amplification is the smaller one.
        return np.minimum(_rdp(sampled, sampling), _rdp(gaussian, sampling))
    if isinstance(sampling, Poisson):
        return _rdp(dp.PoissonSampledDpEvent(sampling.rate, gaussian), sampling)
    return _rdp(gaussian, sampling)


def _rdp(event: Any, sampling: Everyone | Poisson | FixedSize) -> NDArray[np.float64]:
    import dp_accounting as dp

    relation = dp.NeighboringRelation[sampling.neighbours.upper()]
    with _silent_about_low_orders():
        accountant = dp.rdp.RdpAccountant(ORDERS, relation).compose(event)
    return np.asarray(np.maximum(accountant.rdp, _ROUNDING), dtype=np.float64)


def _with_probability(rate: float, divergences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bound a mechanism that runs with probability ``rate`` and otherwise releases nothing.

    The adversary is told whether the mechanism ran. Then exp((a - 1) * D_a) is the mean of its two
    values: rate * exp((a - 1) * divergence_a) + (1 - rate) * 1. To hide whether the mechanism ran
    can only lower this value, because it is jointly convex.
    """
    exponent = (ORDERS - 1) * divergences
    small = np.log1p(rate * np.expm1(np.minimum(exponent, 30.0)))
    mixed = np.where(exponent < 30.0, small, np.logaddexp(math.log(rate) + exponent, 0.0))
    return np.minimum(mixed / (ORDERS - 1), divergences)


def loss_distributions(sampling: Sampling, noise_multiplier: float) -> list[Any]:
    """List privacy loss distributions of one round; each of them is an upper bound.

    Sources: arXiv 2207.04380 (Everyone, Poisson); for FixedSize see ``_without_replacement``.
    """
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import privacy_loss_distribution as pld

    if isinstance(sampling, Nested):
        of_groups = loss_distributions(sampling.groups, noise_multiplier)
        nothing = pld.identity(_interval(sampling.groups, noise_multiplier))
        return [loss.compute_mixture(nothing, sampling.client_rate) for loss in of_groups]
    std = _noise_per_sensitivity(sampling, noise_multiplier)
    interval = _interval(sampling, noise_multiplier)

    def gaussian(rate: float, relation: str) -> Any:
        return pld.from_gaussian_mechanism(
            std,
            sampling_prob=rate,
            neighboring_relation=NeighboringRelation[relation],
            value_discretization_interval=interval,
        )

    if isinstance(sampling, Everyone):
        return [gaussian(1.0, "ADD_OR_REMOVE_ONE")]
    if isinstance(sampling, Poisson):
        return [gaussian(sampling.rate, "ADD_OR_REMOVE_ONE")]
    return [_without_replacement(sampling.num_sampled / sampling.num_total, std, interval)]


def _without_replacement(rate: float, std: float, interval: float) -> Any:
    """Return the losses of a fixed-size sample, whose neighbours replace a member (replace_one).

    ``std`` is the noise over the sensitivity, and ``interval`` the step of the grid of losses. Two
    neighbours without sampling are the normals P and Q of means 1 and 0. With sampling, delta at an
    epsilon of at least 0 is at most that of (rate * P + (1 - rate) * Q, Q). Below 0, it is at most
    that of (P, rate * Q + (1 - rate) * P), which is the same curve seen from the other neighbour.
    Both halves together are the curve of one pair of distributions, which bounds every round, so
    rounds compose by it. Between points of the grid, delta is drawn as a line in exp(epsilon).

    Sources: arXiv 1807.01647, theorem 10 (the sample); arXiv 2106.08567, theorem 11 (the pair);
    arXiv 2207.04380, algorithm 1 (the grid).
    """
    from dp_accounting.pld import privacy_loss_distribution as pld

    count = math.ceil(_largest_loss(rate, std) / interval)
    grid: NDArray[np.float64] = np.arange(count + 1, dtype=np.float64) * interval
    deltas = _sampled_delta(grid, rate, std)
    steps = np.diff(deltas)
    above = np.empty(count)  # the probabilities of the losses interval, 2 * interval, ...
    above[:-1] = (steps[1:] - steps[:-1] * math.exp(interval)) / math.expm1(interval)
    above[-1] = steps[-1] / math.expm1(-interval)
    above = np.maximum(above, 0.0)
    below = above * np.exp(-grid[1:])  # the two neighbours see the same curve
    at_zero = max(0.0, 1.0 - float(above.sum() + below.sum() + deltas[-1]))
    probabilities = np.concatenate([below[::-1], [at_zero], above])
    return pld.PrivacyLossDistribution.create_from_rounded_probability(
        dict(zip(range(-count, count + 1), probabilities.tolist(), strict=True)),
        float(deltas[-1]),
        interval,
    )


def _sampled_delta(epsilons: NDArray[np.float64], rate: float, std: float) -> NDArray[np.float64]:
    """Compute delta of a fixed-size sample at epsilons of at least 0.

    It is rate * delta(log(1 + (exp(epsilon) - 1) / rate)), where delta(.) is that of the Gaussian
    without sampling (arXiv 1805.06530, theorem 8).
    """
    from scipy.special import log_ndtr, ndtr

    # The first form is exact near 0, and the second does not overflow.
    inner = np.where(
        epsilons < 1.0,
        np.log1p(np.expm1(np.minimum(epsilons, 1.0)) / rate),
        epsilons - math.log(rate) + np.log1p((rate - 1.0) * np.exp(-epsilons)),
    )
    half = 0.5 / std
    reached = ndtr(half - inner * std)
    delta = reached - np.exp(inner + log_ndtr(-half - inner * std))
    return np.asarray(rate * np.maximum(delta, 0.0))


def _largest_loss(rate: float, std: float) -> float:
    """Return a loss that a sampled round exceeds with a probability of at most 1e-17."""
    unsampled = 0.5 / std**2 + _TAIL / std
    return unsampled + math.log(rate + (1.0 - rate) * math.exp(-unsampled))


def _noise_per_sensitivity(sampling: Sampling, noise_multiplier: float) -> float:
    return noise_multiplier / (2 if sampling.neighbours == "replace_one" else 1)


def _interval(sampling: Sampling, noise_multiplier: float) -> float:
    """Choose a coarser grid where losses are large: a fine grid would take memory, for no digit."""
    return _INTERVAL * max(1.0, 2.5 / _noise_per_sensitivity(sampling, noise_multiplier) ** 2)


@contextmanager
def _silent_about_low_orders() -> Iterator[None]:
    """Drop one warning of dp-accounting: a series did not converge, so its order does not count.

    With little noise, this happens for orders close to 1. The bound stays sound without them.
    """

    def wanted(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("_compute_log_a_frac failed to converge")

    logger = logging.getLogger("absl")
    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)
