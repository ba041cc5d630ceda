"""Composition of the privacy budget: configuration -> noise, and what it costs round by round."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scaling_fl.build_data import SetupError
from scaling_fl.config import Config
from scaling_fl.federation.privacy import Privacy
from scaling_fl.methods.privacy_accounting import Accountant, max_rounds, solve_noise_multiplier
from scaling_fl.methods.privacy_sampling import Everyone, FixedSize, Sampling

_PROTECTED = {
    "add_or_remove_one": "one client's taking part",
    "replace_one": "all data of one client that takes part",
}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What privacy costs; without noise, ``epsilon`` is None and only updates are clipped."""

    privacy: Privacy
    num_rounds: int
    epsilon: Callable[[int], float] | None
    terms: dict[str, Any]
    """What every round of a job must share, or its epsilon would be of another job."""


def make_budget(config: Config, num_clients: int, note: Callable[[str], None]) -> Budget | None:
    """Choose the noise and the number of rounds, and say what they cost before the first one.

    Raises:
        SetupError: the noise or a single round cannot keep to what was asked for.
    """
    if config.privacy.clip is None:
        return None
    sampled = config.cohort_size(num_clients)
    sampling = Everyone() if sampled == num_clients else FixedSize(sampled, num_clients)
    noise = _noise_multiplier(config, sampling)
    accountant = Accountant(noise, config.privacy.delta, sampling, config.privacy.accountant)
    num_rounds = _num_rounds(config, accountant)
    if config.privacy.is_noisy:
        note(
            f"privacy: epsilon {accountant.epsilon(num_rounds):.4g} at delta "
            f"{config.privacy.delta:g} after {num_rounds} rounds, noise multiplier {noise:.4g}; "
            f"protected is {_PROTECTED[sampling.neighbours]} ({sampling.neighbours})"
        )
    if num_rounds < config.num_rounds:
        note(
            f"the run ends after {num_rounds} of {config.num_rounds} rounds, before it would "
            f"exceed privacy.max_epsilon={config.privacy.max_epsilon:g}"
        )
    return Budget(
        privacy=Privacy(clip=config.privacy.clip, noise_multiplier=noise, seed=config.seed),
        num_rounds=num_rounds,
        epsilon=accountant.epsilon if config.privacy.is_noisy else None,
        terms={
            "privacy.clip": config.privacy.clip,
            "privacy noise": noise,
            "privacy sampling": repr(sampling),
        },
    )


def _noise_multiplier(config: Config, sampling: Sampling) -> float:
    if config.privacy.target_epsilon is None:
        return config.privacy.noise_multiplier
    try:
        return solve_noise_multiplier(
            config.privacy.target_epsilon,
            num_rounds=config.num_rounds,
            delta=config.privacy.delta,
            sampling=sampling,
            accountant=config.privacy.accountant,
        )
    except ValueError as error:
        raise SetupError(str(error)) from None


def _num_rounds(config: Config, accountant: Accountant) -> int:
    limit = config.privacy.max_epsilon
    if limit is None or accountant.epsilon(config.num_rounds) <= limit:
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
        raise SetupError(
            f"privacy.max_epsilon must allow a round, which costs {one:.4g}, got {limit:g}; raise "
            "it, privacy.noise_multiplier or privacy.delta."
            if math.isfinite(one)
            else f"privacy.max_epsilon={limit:g} cannot be kept with so little noise; raise "
            "privacy.noise_multiplier."
        )
    return allowed
