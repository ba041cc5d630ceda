"""Client-level central differential privacy: clip every update, add Gaussian noise to their sum.

Noise is a function of (seed, round), so every worker adds the same and a resumed run repeats it.
That also means: **whoever knows the seed can subtract the noise.** A guarantee holds only against
those who know neither the seed nor what was summed, and a seed such as 42 can be guessed. The
generator (PCG64) is statistically sound, not cryptographic. What epsilon covers is the sequence of
global states and noisy clip fractions; losses, norms and cohorts in a run's logs are outside it.
How much epsilon that is: ``privacy_accounting``.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from scaling_fl.core.exact_sum import FRACTION_BITS, LIMIT
from scaling_fl.core.seeding import numpy_generator

_CHUNK = 1 << 16  # doubles that stay in a core's cache between the passes
_NORM_CHUNK = (
    1 << 20
)  # bounds the doubles of a norm in memory, without a kernel launch for each few
_MARGIN = 1.0 - 2.0**-22  # rounding the factor and each fp32 coordinate gives at most 2**-23
_CLIP_ATTEMPTS = 4
LARGEST_STD = LIMIT / 16  # no coordinate's noise reaches LIMIT, so no exact sum overflows


def l2_norm(update: Tensor) -> float:
    """Compute the L2 norm in double: squares of fp32 can overflow fp32, and their sum loses digits.

    Its last bits follow the number of threads, which a run pins.
    """
    total = torch.zeros((), dtype=torch.float64, device=update.device)
    for part in update.split(_NORM_CHUNK):
        total += torch.linalg.vector_norm(part, dtype=torch.float64).square()
    return math.sqrt(float(total))


def clip_(update: Tensor, norm: float, clip: float) -> float:
    """Scale the update in place by min(1, clip / norm) and return the factor.

    ``norm`` is ``l2_norm(update)``, in double: an fp32 norm may be too small by what fp32 rounds.
    The norm after scaling, in double, is never above ``clip``, because sensitivity counts and not
    intention: the factor is a 4-millionth smaller than the quotient, and the result is measured.
    An update that is short enough keeps every bit. Source: arXiv 1710.06963, algorithm 1.

    Raises:
        ValueError: when the clip is not above 0 or the norm not finite.
    """
    _check_positive("privacy.clip", clip)
    if not (math.isfinite(norm) and norm >= 0):
        raise ValueError(
            f"an update to clip must have a finite norm, got {norm}; leave the client out."
        )
    factor = 1.0
    for _ in range(_CLIP_ATTEMPTS):
        if norm <= clip:
            return factor
        step = clip / norm * _MARGIN
        update.mul_(step)
        factor *= step
        norm = l2_norm(update)
    if norm <= clip:
        return factor
    # Only among subnormal numbers, where scaling down can round up; no update is safe there.
    update.zero_()
    return 0.0


def add_noise_(units: Tensor, std: float, *, seed: int, round_number: int) -> None:
    """Add normal noise to the int64 units (2**-52) of an exact sum over all workers, in place.

    ``std`` is in the scale of the sum: noise_multiplier * clip, times the share that each clipped
    update entered with, 1 / m for a fixed m. A standard deviation of 0 changes nothing.

    The sum lies on the grid of units, so rounding the noise to it equals rounding the noisy sum:
    post-processing of the Gaussian mechanism on the reals, which costs no privacy. What remains of
    the floating-point caveat is how well 53-bit normal numbers match the normal distribution, and
    the rounding of terms in the sum (at most 2**-53 per coordinate and client).

    Raises:
        ValueError: when the standard deviation is below 0 or so large that sums could overflow.
    """
    if _checked_std(std) > LARGEST_STD:
        raise ValueError(
            f"noise on a sum must have a standard deviation of at most {LARGEST_STD:g}, got "
            f"{std}; lower privacy.clip or privacy.noise_multiplier."
        )
    if std == 0:
        return
    for start, part in _standard_normal(units.numel(), seed, round_number):
        rounded = part.mul_(std * 2.0**FRACTION_BITS).round_().to(torch.int64)
        units[start : start + part.numel()].add_(rounded.to(units.device))


@dataclass(frozen=True)
class AdaptiveClip:
    """A clip that follows a quantile of the update norms; ``clip`` is all that a round changes.

    ``target_quantile`` is the share of updates that should stay unclipped; the clip changes by at
    most a factor of about exp(``learning_rate``) a round. Source: arXiv 1905.03871, algorithm 1.
    """

    clip: float
    target_quantile: float = 0.5
    learning_rate: float = 0.2

    def __post_init__(self) -> None:
        _check_positive("privacy.clip", self.clip)
        _check_positive("privacy.clip_learning_rate", self.learning_rate)
        if not 0 <= self.target_quantile <= 1:
            raise ValueError(
                f"privacy.target_quantile must be in [0, 1], got {self.target_quantile}; "
                "0.5 clips half of the updates."
            )

    def after(self, fraction_within: float) -> "AdaptiveClip":
        """Step the clip: C * exp(-learning_rate * (fraction - target)).

        ``fraction_within`` is what ``noisy_fraction_within`` gave; noise may put it outside [0, 1].
        """
        exponent = -self.learning_rate * (fraction_within - self.target_quantile)
        return replace(self, clip=self.clip * math.exp(exponent))


def noisy_fraction_within(
    num_within: int,
    num_clients: int,
    *,
    num_expected: int,
    std: float,
    seed: int,
    round_number: int,
) -> float:
    """Estimate which share of a cohort's updates had norms of at most the clip.

    ``num_within`` of the ``num_clients`` whose updates were summed; ``num_expected`` is the fixed
    divisor that the updates use as well. Every client counts as +1/2 or -1/2, so that adding or
    removing one changes the sum by 1/2, half of what a 0 or 1 would; ``std`` is the noise on that
    sum (the source advises num_expected / 20). Source: arXiv 1905.03871, algorithm 1.
    """
    rng = numpy_generator(seed, "clip noise", round_number)
    total = num_within - num_clients / 2 + _checked_std(std) * float(rng.standard_normal())
    return total / num_expected + 0.5


def update_noise_multiplier(noise_multiplier: float, fraction_std: float) -> float:
    """Compute the noise on the updates, z_delta, with which both releases together cost z.

    Updates (sensitivity C, noise z_delta * C) and the fraction (sensitivity 1/2, noise
    ``fraction_std``) form one Gaussian release: z**-2 = z_delta**-2 + (2 * fraction_std)**-2.
    When replacing a client counts as one step, both sensitivities double, and so it still holds.
    Source: arXiv 1905.03871, theorem 1.

    Raises:
        ValueError: when the fraction alone would cost more than z, whatever the updates' noise.
    """
    _check_positive("privacy.noise_multiplier", noise_multiplier)
    if not 2 * _checked_std(fraction_std) > noise_multiplier:
        raise ValueError(
            f"privacy.clip_noise must be above half of privacy.noise_multiplier "
            f"({noise_multiplier / 2:g}), got {fraction_std}; raise it, for example to a 20th of "
            "the clients per round."
        )
    ratio = noise_multiplier / (2 * fraction_std)
    return noise_multiplier / math.sqrt((1 - ratio) * (1 + ratio))


def _standard_normal(size: int, seed: int, round_number: int) -> Iterator[tuple[int, Tensor]]:
    """Yield (start, fp64 numbers) chunk by chunk; a chunk is valid until the next is asked for.

    They are drawn in double on the CPU: torch's own numbers differ between CPU and GPU and between
    GPU models, so a mixed or moved run would not add the same noise.
    """
    rng = numpy_generator(seed, "noise", round_number)
    buffer = np.empty(min(size, _CHUNK), dtype=np.float64)
    for start in range(0, size, _CHUNK):
        part = buffer[: min(_CHUNK, size - start)]
        rng.standard_normal(out=part)
        yield start, torch.from_numpy(part)


def _checked_std(std: float) -> float:
    if not (math.isfinite(std) and std >= 0):
        raise ValueError(f"a noise's standard deviation must be finite and at least 0, got {std}.")
    return std


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a finite number above 0, got {value}; use 1.0, say.")
