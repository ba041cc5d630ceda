"""Client-level central differential privacy: clip every update, add Gaussian noise to their sum.

The noise follows from a key, so all workers add the same noise and a resumed run repeats it.
Therefore **whoever knows the key can subtract the noise**: the guarantee holds only against people
who know neither the key nor the updates. The generator (PCG64, with 256 bits of the key) is
statistically sound, not cryptographic. Epsilon covers the global states and the noisy fractions of
unclipped updates, and all that follows from these; ``federation.disclosure`` says what a run
therefore keeps to itself. ``accounting`` computes epsilon.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from scaling_fl.core.exact_sum import FRACTION_BITS, LIMIT

_CHUNK = 1 << 16  # doubles that stay in a core's cache between the passes
_NORM_CHUNK = (
    1 << 20
)  # bounds the doubles of a norm in memory, without a kernel launch for each few
_MARGIN = 1.0 - 2.0**-22  # to round the factor and each fp32 coordinate adds at most 2**-23
_CLIP_ATTEMPTS = 4
LARGEST_STD = LIMIT / 16  # noise on a coordinate stays below LIMIT, so no exact sum overflows
ROUNDINGS_IN_CLIP = 128
"""The smallest clip in multiples of ``rounding_norm``: rounding then takes 1 % of an update."""


def l2_norm(update: Tensor) -> float:
    """Compute the L2 norm in double; in fp32, squares may overflow and their sum loses digits.

    The last bits depend on the number of threads, which is fixed for a run.
    """
    total = torch.zeros((), dtype=torch.float64, device=update.device)
    for chunk in update.split(_NORM_CHUNK):
        total += torch.linalg.vector_norm(chunk, dtype=torch.float64).square()
    return math.sqrt(float(total))


def clip_(update: Tensor, norm: float, clip: float) -> float:
    """Scale the update in place by min(1, clip / norm) and return the factor.

    ``norm`` is ``l2_norm(update)``, in double: an fp32 norm may be too small by rounding. After
    scaling, the norm in double is never above ``clip``: the factor is (1 - 2**-22) * clip / norm,
    and the new norm is measured. An update with a norm of at most ``clip`` keeps every bit.
    Source: arXiv 1710.06963, algorithm 1.

    Raises:
        ValueError: the clip is not above 0, or the norm is not finite.
    """
    _check_positive("privacy.clip", clip)
    if not (math.isfinite(norm) and norm >= 0):
        raise ValueError(f"the norm of an update must be finite, got {norm}; leave the client out.")
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
    # Only subnormal numbers get here: they may grow when they are scaled down, by rounding.
    update.zero_()
    return 0.0


def rounding_norm(size: int, num_units: int) -> float:
    """Bound what the rounding of an exact sum adds to the influence of one update, as a norm.

    Each of ``size`` coordinates of a term, which is an update divided by ``num_units``, is rounded
    to a multiple of 2**-52. So where one update is left out or replaced, the integers of the sum
    change by its own change and at most one step a coordinate. Updates that are bounded by the clip
    less this norm change the integers by at most the clip; see ``add_noise_`` for the noise.
    """
    return math.sqrt(size) * num_units * 2.0**-FRACTION_BITS


def add_noise_(integers: Tensor, std: float, rng: np.random.Generator) -> None:
    """Add normal noise, in place, to an exact sum over all workers (int64 multiples of 2**-52).

    ``std`` is noise_multiplier * clip * share, where every clipped update has the share 1 / m in
    the sum, for a fixed m. A standard deviation of 0 changes nothing.

    The sum is a multiple of 2**-52, so to round the noise is to round the noisy sum: this is
    post-processing of the Gaussian mechanism on the reals (Dwork and Roth 2014, proposition 2.1),
    and costs no privacy, however small the noise is. So no discrete Gaussian (arXiv 2004.00010) is
    needed; what rounding does to the terms of the sum, ``rounding_norm`` accounts for. One error of
    floating point remains: normal numbers of 53 bits are not exactly normal. A state shows 24 bits
    of a sum, which hide where the 53 bits end.

    Raises:
        ValueError: the standard deviation is below 0, or so large that sums could overflow.
    """
    if _checked_std(std) > LARGEST_STD:
        raise ValueError(
            f"the standard deviation of the noise on a sum must be at most {LARGEST_STD:g}, got "
            f"{std}; lower privacy.clip or privacy.noise_multiplier."
        )
    if std == 0:
        return
    for offset, chunk in _standard_normal(integers.numel(), rng):
        rounded = chunk.mul_(std * 2.0**FRACTION_BITS).round_().to(torch.int64)
        integers[offset : offset + chunk.numel()].add_(rounded.to(integers.device))


@dataclass(frozen=True)
class AdaptiveClip:
    """A clip that follows a quantile of the norms of the updates; a round changes only ``clip``.

    ``target_quantile`` is the share of updates that should stay unclipped. In a round, the clip
    changes by at most a factor of about exp(learning_rate). Source: arXiv 1905.03871, algorithm 1.
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

    def after(self, unclipped_fraction: float) -> "AdaptiveClip":
        """Return the clip C * exp(-learning_rate * (unclipped_fraction - target_quantile)).

        The fraction comes from ``noisy_unclipped_fraction``; with noise, it may be outside [0, 1].
        """
        exponent = -self.learning_rate * (unclipped_fraction - self.target_quantile)
        return replace(self, clip=self.clip * math.exp(exponent))


def noisy_unclipped_fraction(
    num_unclipped: int,
    num_clients: int,
    *,
    num_expected: int,
    std: float,
    rng: np.random.Generator,
) -> float:
    """Return (num_unclipped - num_clients / 2 + std * normal) / num_expected + 1/2.

    ``num_unclipped`` of ``num_clients`` summed updates had norms of at most the clip. The sum of
    the updates has the same fixed divisor, ``num_expected``. A client counts as +1/2 or -1/2, so to
    add or remove a client changes the count by 1/2 (by 1, if clients counted as 0 or 1). ``std`` is
    the noise on the count; the source advises num_expected / 20.
    Source: arXiv 1905.03871, algorithm 1.
    """
    total = num_unclipped - num_clients / 2 + _checked_std(std) * float(rng.standard_normal())
    return total / num_expected + 0.5


def update_noise_multiplier(noise_multiplier: float, fraction_std: float) -> float:
    """Compute z_delta, the noise multiplier of the updates, from z, that of the whole release.

    The sum of the updates (sensitivity C, noise z_delta * C) and the unclipped fraction
    (sensitivity 1/2, noise ``fraction_std``) are one Gaussian release with
    z**-2 = z_delta**-2 + (2 * fraction_std)**-2. For neighbours that replace a client, both
    sensitivities double, and the equation is the same. Source: arXiv 1905.03871, theorem 1.

    Raises:
        ValueError: the fraction alone costs more than z allows.
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


def _standard_normal(size: int, rng: np.random.Generator) -> Iterator[tuple[int, Tensor]]:
    """Yield (index of the first number, fp64 numbers); the next chunk overwrites the numbers.

    numpy draws the numbers on the CPU. torch's numbers differ between CPU and GPU and between GPU
    models, so two workers, or a run that is resumed elsewhere, could add different noise.
    """
    buffer = np.empty(min(size, _CHUNK), dtype=np.float64)
    for offset in range(0, size, _CHUNK):
        chunk = buffer[: min(_CHUNK, size - offset)]
        rng.standard_normal(out=chunk)
        yield offset, torch.from_numpy(chunk)


def _checked_std(std: float) -> float:
    if not (math.isfinite(std) and std >= 0):
        raise ValueError(f"the standard deviation of noise must be finite and >= 0, got {std}.")
    return std


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a finite number above 0, got {value}; use 1.0 to start.")
