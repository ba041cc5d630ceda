"""Configuration -> the privacy budget: the noise, the number of rounds, and epsilon by round."""

import math
import os
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from scaling_fl.composition.fingerprint import SEAL
from scaling_fl.composition.sampled import (
    bytes_tell_nobody,
    is_amplified,
    rounds_of_busiest,
    sampling_of,
    what_is_protected,
)
from scaling_fl.config import Config, secret_problems
from scaling_fl.config.sections import PrivacySettings
from scaling_fl.core.errors import InputError
from scaling_fl.core.exact_sum import LIMIT
from scaling_fl.core.seeding import Randomness
from scaling_fl.federation.disclosure import Disclosure
from scaling_fl.federation.privacy import Privacy, Quantile
from scaling_fl.methods.privacy.accounting import (
    LEAST_NOISE,
    Accountant,
    max_rounds,
    solve_noise_multiplier,
)
from scaling_fl.methods.privacy.mechanism import (
    LARGEST_STD,
    ROUNDINGS_IN_CLIP,
    rounding_norm,
    update_noise_multiplier,
)
from scaling_fl.methods.privacy.neighbours import Sampling

NOISE = "privacy noise"
"""The key of the noise multiplier in the fingerprint that a job keeps."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The privacy of a job; without noise, updates are clipped and ``epsilon`` is None."""

    settings: PrivacySettings
    noise_multiplier: float
    """The noise multiplier of the sum of updates."""
    total_noise: float
    """The noise multiplier of all that a round releases; epsilon is computed from it."""
    clip_noise: float
    """The standard deviation of the noise on the number of unclipped updates."""
    num_units: int
    """The expected number of units (clients or groups) whose updates a round sums."""
    largest_clip: float
    """The upper limit of an adaptive clip, above which a sum could overflow."""
    num_rounds: int
    """The rounds that the largest epsilon allows, of all rounds."""
    epsilon: Callable[[int], float] | None
    """Number of rounds -> epsilon."""
    has_secret_draws: bool
    """Whether epsilon is smaller because nobody knows who was drawn."""
    disclosure: Disclosure
    """What of a round is told beside its state."""
    guarantee: dict[str, Any]
    """The settings that must be equal in all rounds of a job, because epsilon depends on them."""

    @property
    def is_noisy(self) -> bool:
        return self.epsilon is not None

    @property
    def scale(self) -> list[float | None]:
        """What decides how large the noise is: noise of two scales must not be the same noise."""
        return [self.settings.clip, self.noise_multiplier, self.clip_noise, self.num_units]

    def privacy(self, noise: Randomness, size: int) -> Privacy:
        """Make what clips vectors of ``size`` coordinates and adds ``noise``, if there is any.

        Raises:
            InputError: the clip is so small that the rounding of a sum counts.
        """
        rounding = rounding_norm(size, self.num_units) if self.is_noisy else 0.0
        clip, least = self.settings.clip or math.inf, ROUNDINGS_IN_CLIP * rounding
        if clip < least:
            raise InputError(
                f"privacy.clip must be at least {least:.2g} with {size:,} parameters and "
                f"{self.num_units} clients or groups in a round, because a sum rounds what is far "
                f"smaller, got {clip:g}; raise privacy.clip."
            )
        quantile = None
        if self.settings.target_quantile is not None:
            quantile = Quantile(
                target=self.settings.target_quantile,
                learning_rate=self.settings.clip_learning_rate,
                std=self.clip_noise,
            )
        return Privacy(
            clip=clip,
            noise_multiplier=self.noise_multiplier,
            num_units=self.num_units,
            noise=noise,
            by_group=self.settings.unit == "group",
            rounding=rounding,
            quantile=quantile,
            largest_clip=self.largest_clip,
        )


def make_budget(
    config: Config,
    num_clients: int,
    note: Callable[[str], None],
    *,
    begun: Mapping[str, Any] | None = None,
    with_secret: bool = True,
) -> Budget | None:
    """Choose the noise and the number of rounds, and note their epsilon; None without privacy.

    ``begun`` is the fingerprint that the job has kept so far, None for a new job.

    Raises:
        InputError: there is noise and no secret, no noise reaches the target, a sum cannot hold the
            noise, or one round already costs more than the largest epsilon.
    """
    if config.privacy.clip is None:
        return None
    if with_secret and (problems := secret_problems(config, os.environ)):
        raise InputError("; ".join(map(str, problems)))
    sampling = sampling_of(config, num_clients)
    num_units = config.cohort_size(num_clients) * config.privacy.groups_per_round
    noise = _noise_multiplier(config, sampling, begun or {})
    on_updates = _noise_on_updates(config, noise, num_units)
    _check_noise(config, noise, on_updates, num_units, num_clients)
    accountant = Accountant(noise, config.privacy.delta, sampling, config.privacy.accountant)

    def epsilon(num_rounds: int) -> float:
        return accountant.epsilon(rounds_of_busiest(config, num_rounds))

    budget = Budget(
        settings=config.privacy,
        noise_multiplier=on_updates,
        total_noise=noise,
        clip_noise=_clip_noise(config.privacy, noise, num_units),
        num_units=num_units,
        largest_clip=_largest_clip(config, num_clients, num_units),
        num_rounds=_num_rounds(config, accountant),
        epsilon=epsilon if config.privacy.is_noisy else None,
        has_secret_draws=bool(noise) and is_amplified(sampling),
        disclosure=Disclosure(
            of_clients=not noise, of_bytes=not noise or bytes_tell_nobody(config, num_clients)
        ),
        guarantee={
            "privacy.clip": config.privacy.clip,
            NOISE: noise,
            "privacy sampling": repr(sampling),
            "privacy.unit": config.privacy.unit,
        },
    )
    _tell(budget, config, sampling, note)
    return budget


def _tell(budget: Budget, config: Config, sampling: Sampling, note: Callable[[str], None]) -> None:
    """Note the epsilon of the whole run, and whether the largest epsilon ends the run early."""
    if budget.epsilon:
        note(
            f"privacy: epsilon {budget.epsilon(budget.num_rounds):.4g} at delta "
            f"{config.privacy.delta:g} after {budget.num_rounds} rounds, noise multiplier "
            f"{budget.total_noise:.4g}; it protects {what_is_protected(config, sampling)} "
            f"({sampling.neighbours})"
        )
    if budget.num_rounds < config.num_rounds:
        path, limit = config.epsilon_limit
        note(
            f"the run ends after {budget.num_rounds} of {config.num_rounds} rounds, because "
            f"another round would exceed {path}={limit:g}"
        )


def _noise_on_updates(config: Config, noise: float, num_units: int) -> float:
    """Return the noise multiplier of the updates, which an adaptive clip makes larger."""
    if config.privacy.target_quantile is None or not noise:
        return noise
    try:
        return update_noise_multiplier(noise, _clip_noise(config.privacy, noise, num_units))
    except ValueError as error:
        raise InputError(str(error)) from None


def _clip_noise(settings: PrivacySettings, noise: float, num_units: int) -> float:
    """Choose the noise on the number of unclipped updates: max(num_units / 20, noise).

    arXiv 1905.03871 advises num_units / 20. With few clients this is too little: it must be above
    noise / 2, or the number alone would cost more than the whole release.
    """
    return float(settings.clip_noise or max(num_units / 20, noise)) if noise else 0.0


def _noise_multiplier(config: Config, sampling: Sampling, begun: Mapping[str, Any]) -> float:
    if config.privacy.target_epsilon is None:
        return config.privacy.noise_multiplier
    try:
        solved = solve_noise_multiplier(
            config.privacy.target_epsilon,
            num_rounds=rounds_of_busiest(config, config.num_rounds),
            delta=config.privacy.delta,
            sampling=sampling,
            accountant=config.privacy.accountant,
        )
    except ValueError as error:
        raise InputError(str(error)) from None
    # Earlier versions, whose jobs have no seal, chose more noise for some targets.
    earlier = begun.get(NOISE, 0.0) if SEAL not in begun else 0.0
    return max(solved, float(earlier))


def _check_noise(
    config: Config, noise: float, on_updates: float, num_units: int, num_clients: int
) -> None:
    """Check before the first round that a sum can hold the noise, and that the noise protects."""
    clip = config.privacy.clip or 0.0
    std = on_updates * clip / num_units
    if std > LARGEST_STD:
        raise InputError(
            "privacy.clip * noise multiplier / (clients or groups of a round) must be at most "
            f"{LARGEST_STD:g}, got {std:g}; lower privacy.clip."
        )
    largest = _largest_clip(config, num_clients, num_units)
    if clip > largest:
        raise InputError(
            f"privacy.clip must be at most {largest:g}, so that the sum of all updates of a round "
            f"stays below {LIMIT:g}, got {clip:g}; lower privacy.clip."
        )
    if 0 < noise < LEAST_NOISE:
        raise InputError(
            f"privacy.noise_multiplier must be at least {LEAST_NOISE:g}, because epsilon is "
            f"infinite below, got {noise:g}; raise it."
        )
    num_protected = num_clients * config.privacy.groups_per_client
    what = "clients" if config.privacy.unit == "client" else "groups"
    if noise and config.privacy.delta * num_protected >= 1:
        raise InputError(
            f"privacy.delta must be below 1 / (number of {what}), because a larger delta allows to "
            f"publish the data of one, got {config.privacy.delta:g} with {num_protected} {what}; "
            "lower it."
        )


def _largest_clip(config: Config, num_clients: int, num_units: int) -> float:
    """Compute the largest clip with which no sum can overflow, whoever is drawn.

    The sums are: the groups of one client; the mean of all units, divided by the expected number.
    """
    groups = config.privacy.groups_per_client
    drawn = groups if config.sampling == "poisson" else config.privacy.groups_per_round
    of_a_client = LIMIT / drawn if config.privacy.unit == "group" else math.inf
    if config.sampling != "poisson":
        return of_a_client
    return min(of_a_client, LIMIT * num_units / (num_clients * groups))


def _num_rounds(config: Config, accountant: Accountant) -> int:
    path, limit = config.epsilon_limit
    needed = rounds_of_busiest(config, config.num_rounds)
    if limit is None or accountant.epsilon(needed) <= limit:
        return config.num_rounds
    allowed = max_rounds(
        limit,
        noise_multiplier=accountant.noise_multiplier,
        delta=accountant.delta,
        sampling=accountant.sampling,
        accountant=accountant.kind,
    )
    if allowed == 0:
        one = accountant.epsilon(1)
        raise InputError(
            f"{path} must be at least {one:.4g}, the cost of one round, got {limit:g}; raise "
            f"{path}, privacy.noise_multiplier or privacy.delta."
            if math.isfinite(one)
            else f"{path}={limit:g} needs more noise; raise privacy.noise_multiplier."
        )
    counts = range(config.num_rounds + 1)
    return bisect_right(counts, allowed, key=partial(rounds_of_busiest, config)) - 1
