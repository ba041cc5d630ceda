"""What one round of sampling, clipping and noise costs: upper bounds from Google's dp-accounting.

Every bound holds for the neighbouring relation of its sampling (``privacy_sampling``). The noise
has standard deviation ``noise_multiplier * clip`` per coordinate of the sum of clipped updates.
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
"""Renyi orders: dp-accounting's own; Opacus's (1.1 to 10.9, 12 to 63) are among them."""

_ROUNDING = 1e-13  # a cancelled series may end below 0, which would pass for no cost at all
_INTERVAL = 1e-4  # of discretised privacy losses; coarser means looser, never unsound


def renyi_divergences(sampling: Sampling, noise_multiplier: float) -> NDArray[np.float64]:
    """Bound one round's Renyi divergences at ``ORDERS``, in nats; infinite where no bound is known.

    Sources: arXiv 1702.07476, corollary 3 (Everyone); 1908.10530, section 3.3 (Poisson);
    1808.00087, theorem 27 (FixedSize). For fractional orders dp-accounting adds up the absolute
    values of a series with signs: sound, and 5 % more epsilon at worst in the seeds' settings.

    dp-accounting's Renyi accountant takes noise relative to the *sensitivity*, whatever the
    neighbours, although its event is documented relative to the clip (issue 378 of
    google/differential-privacy): replacing a client has sensitivity 2 * clip, hence the half.
    """
    import dp_accounting as dp

    if isinstance(sampling, Nested):
        within = renyi_divergences(sampling.groups, noise_multiplier)
        return _with_probability(sampling.client_rate, within)
    gaussian = dp.GaussianDpEvent(_noise_per_sensitivity(sampling, noise_multiplier))
    if isinstance(sampling, FixedSize):
        sampled = dp.SampledWithoutReplacementDpEvent(
            sampling.num_total, sampling.num_sampled, gaussian
        )
        # The amplified bound is above the plain one for large samples and little noise.
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


def _with_probability(rate: float, within: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mix, in the open, a mechanism with one that releases nothing.

    exp((a - 1) * D_a) is then the average of both, with 1 for nothing. Hiding which of them ran
    can only lower it: it is jointly convex.
    """
    exponent = (ORDERS - 1) * within
    small = np.log1p(rate * np.expm1(np.minimum(exponent, 30.0)))
    mixed = np.where(exponent < 30.0, small, np.logaddexp(math.log(rate) + exponent, 0.0))
    return np.minimum(mixed / (ORDERS - 1), within)


def loss_distributions(sampling: Sampling, noise_multiplier: float) -> list[Any]:
    """List privacy loss distributions of one round, each an upper bound by itself.

    Sources: arXiv 2207.04380 and, for FixedSize, the substitution case of 2405.20769 in the looser
    form that dp-accounting uses for truncated samples (2508.15089): a sampled update takes the
    place of another, so the two neighbours' sums may lie up to 2 * clip away from the sum without,
    on opposite sides.
    """
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import privacy_loss_distribution as pld

    if isinstance(sampling, Nested):
        within = loss_distributions(sampling.groups, noise_multiplier)
        nothing = pld.identity(_interval(sampling.groups, noise_multiplier))
        return [loss.compute_mixture(nothing, sampling.client_rate) for loss in within]
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
    rate = sampling.num_sampled / sampling.num_total
    # The second has no amplification, which is the lower of the two when nearly all take part.
    return [gaussian(rate, "REPLACE_ONE"), gaussian(1.0, "ADD_OR_REMOVE_ONE")]


def _noise_per_sensitivity(sampling: Sampling, noise_multiplier: float) -> float:
    return noise_multiplier / (2 if sampling.neighbours == "replace_one" else 1)


def _interval(sampling: Sampling, noise_multiplier: float) -> float:
    """Coarsen the grid where losses are large, which would take memory and not gain a digit."""
    return _INTERVAL * max(1.0, 2.5 / _noise_per_sensitivity(sampling, noise_multiplier) ** 2)


@contextmanager
def _silent_about_low_orders() -> Iterator[None]:
    """Drop one warning: that a low order's series did not converge and does not count.

    With little noise that is so for orders close to 1. Leaving an order out loosens the bound.
    """

    def wanted(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("_compute_log_a_frac failed to converge")

    logger = logging.getLogger("absl")
    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)
