"""Composition of the privacy budget: configuration -> noise, and what it costs round by round."""

import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scaling_fl.config import Config
from scaling_fl.config.sections import PrivacySettings
from scaling_fl.core.errors import UserError
from scaling_fl.core.exact_sum import LIMIT
from scaling_fl.core.exchange import Exchange
from scaling_fl.federation.privacy import Privacy, Quantile
from scaling_fl.methods.privacy.accounting import (
    LEAST_NOISE,
    Accountant,
    max_rounds,
    solve_noise_multiplier,
)
from scaling_fl.methods.privacy.mechanism import LARGEST_STD, update_noise_multiplier
from scaling_fl.methods.privacy.neighbours import Everyone, FixedSize, Nested, Poisson, Sampling

NOISE_KEY = "SCALING_FL_NOISE_SECRET"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What privacy costs; without noise, ``epsilon`` is None and only updates are clipped."""

    settings: PrivacySettings
    noise_multiplier: float
    """Of the updates alone, which share the budget with an adaptive clip."""
    total_noise: float
    """Of a round's whole release, which is what epsilon is computed from."""
    clip_noise: float
    """Standard deviation of the noise on the number of updates within an adaptive clip."""
    num_units: int
    """The expected number of clients, or of their groups, whose updates are summed in a round."""
    largest_clip: float
    """What an adaptive clip must not exceed, or a sum could overflow."""
    noise_key: str
    num_rounds: int
    epsilon: Callable[[int], float] | None
    draw_seed: int | None
    """Decides who is drawn, if epsilon counts on nobody's knowing."""
    terms: dict[str, Any]
    """What every round of a job must share, or its epsilon would be of another job."""

    def privacy(self, computation: Any) -> Privacy:
        """Derive the noise from the key, all that is computed, and how much noise it is.

        Two runs that differ in anything have different noise: the difference of two noisy sums
        with the same noise would be free of it, and with noise of two sizes, too.
        """
        scale = [self.settings.clip, self.noise_multiplier, self.clip_noise, self.num_units]
        text = json.dumps([self.noise_key, computation, scale], sort_keys=True)
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
        by_group = self.settings.unit == "group"
        quantile = None
        if self.settings.target_quantile is not None:
            quantile = Quantile(
                target=self.settings.target_quantile,
                learning_rate=self.settings.clip_learning_rate,
                std=self.clip_noise,
            )
        return Privacy(
            clip=self.settings.clip or math.inf,
            noise_multiplier=self.noise_multiplier,
            num_units=self.num_units,
            seed=seed,
            by_group=by_group,
            quantile=quantile,
            largest_clip=self.largest_clip,
        )


def make_budget(
    config: Config, num_clients: int, note: Callable[[str], None], *, with_secret: bool = True
) -> Budget | None:
    """Choose the noise and the number of rounds, and say what they cost before the first one.

    Raises:
        UserError: the noise or a single round cannot keep to what was asked for.
    """
    if config.privacy.clip is None:
        return None
    sampling = sampling_of(config, num_clients)
    num_units = config.cohort_size(num_clients) * config.privacy.groups_per_round
    noise = _noise_multiplier(config, sampling)
    on_updates = _noise_on_updates(config, noise, num_units)
    _check_noise(config, noise, on_updates, num_units, num_clients)
    accountant = Accountant(noise, config.privacy.delta, sampling, config.privacy.accountant)
    num_rounds = _num_rounds(config, accountant)
    if config.privacy.is_noisy:
        note(
            f"privacy: epsilon {accountant.epsilon(num_rounds):.4g} at delta "
            f"{config.privacy.delta:g} after {num_rounds} rounds, noise multiplier {noise:.4g}; "
            f"protected is {_protected(config, sampling)} ({sampling.neighbours})"
        )
    if num_rounds < config.num_rounds:
        note(
            f"the run ends after {num_rounds} of {config.num_rounds} rounds, before it would "
            f"exceed privacy.max_epsilon={config.privacy.max_epsilon:g}"
        )
    key = _noise_key() if noise and with_secret else os.environ.get(NOISE_KEY, "")
    return Budget(
        settings=config.privacy,
        noise_multiplier=on_updates,
        total_noise=noise,
        clip_noise=_clip_noise(config.privacy, noise, num_units),
        num_units=num_units,
        largest_clip=_largest_clip(config, num_clients, num_units),
        noise_key=key,
        num_rounds=num_rounds,
        epsilon=accountant.epsilon if config.privacy.is_noisy else None,
        draw_seed=_draw_seed(config, key) if noise and is_amplified(sampling) else None,
        terms={
            "privacy.clip": config.privacy.clip,
            "privacy noise": noise,
            "privacy sampling": repr(sampling),
            "privacy.unit": config.privacy.unit,
        },
    )


def _draw_seed(config: Config, key: str) -> int:
    """Derive who is drawn from the secret; the seed of the configuration is known to many."""
    digest = hashlib.sha256(json.dumps([key, "draws", config.seed]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def is_amplified(sampling: Sampling) -> bool:
    """Say whether the bound counts on nobody's knowing who was drawn."""
    if isinstance(sampling, Nested):
        return sampling.client_rate < 1 or is_amplified(sampling.groups)
    return not isinstance(sampling, Everyone)


def sampling_of(config: Config, num_clients: int) -> Sampling:
    """Name the sampling that is really used, of which epsilon is reported."""
    size = config.cohort_size(num_clients)
    clients: Everyone | Poisson | FixedSize
    if config.listed_cohorts or size == num_clients:
        clients = Everyone()  # who takes part when is known to all
    elif config.sampling == "poisson":
        clients = Poisson(size / num_clients)
    else:
        clients = FixedSize(size, num_clients)
    if config.privacy.unit == "client":
        return clients
    drawn, of = config.privacy.groups_per_round, config.privacy.groups_per_client
    groups: Everyone | Poisson | FixedSize = FixedSize(drawn, of)
    if drawn == of:
        groups = Everyone()
    elif config.sampling == "poisson":
        groups = Poisson(drawn / of)
    rate = 1.0 if isinstance(clients, Everyone) else size / num_clients
    return Nested(rate, groups)


def _protected(config: Config, sampling: Sampling) -> str:
    who = "one client" if config.privacy.unit == "client" else "one group of a client"
    if sampling.neighbours == "replace_one":
        return f"all data of {who} that takes part"
    return f"{who}'s taking part"


def _noise_on_updates(config: Config, noise: float, num_units: int) -> float:
    """Split the noise between the updates and the number of them that is within the clip."""
    if config.privacy.target_quantile is None or not noise:
        return noise
    try:
        return update_noise_multiplier(noise, _clip_noise(config.privacy, noise, num_units))
    except ValueError as error:
        raise UserError(str(error)) from None


def _clip_noise(settings: PrivacySettings, noise: float, num_units: int) -> float:
    """Choose the noise on how many updates are within the clip, as arXiv 1905.03871 advises.

    With few clients that is too little for the whole noise, to which it must leave a part.
    """
    return float(settings.clip_noise or max(num_units / 20, noise)) if noise else 0.0


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
        raise UserError(str(error)) from None


def check_same_noise(privacy: Privacy, exchange: Exchange) -> None:
    """Refuse to train when workers would add different noise.

    Raises:
        UserError: their keys differ.
    """
    if not privacy.is_noisy:
        return
    shown = hashlib.sha256(str(privacy.seed).encode()).hexdigest()
    if len({row["noise"] for row in exchange.gather([{"noise": shown}])}) > 1:
        raise UserError(
            f"{NOISE_KEY}, and the weights of model, must be the same on all machines, got "
            "different ones; copy the first's."
        )


def _check_noise(
    config: Config, noise: float, on_updates: float, num_units: int, num_clients: int
) -> None:
    """Refuse noise that no sum can hold or that hides nothing, before a round is spent on it."""
    clip = config.privacy.clip or 0.0
    std = on_updates * clip / num_units
    if std > LARGEST_STD:
        raise UserError(
            f"privacy.clip times the noise multiplier, for each client of a round, must be at most "
            f"{LARGEST_STD:g}, got {std:g}; lower privacy.clip."
        )
    largest = _largest_clip(config, num_clients, num_units)
    if clip > largest:
        raise UserError(
            f"privacy.clip must be at most {largest:g}, with which the sum of all that a round may "
            f"draw stays below {LIMIT:g}, got {clip:g}; lower privacy.clip."
        )
    if 0 < noise < LEAST_NOISE:
        raise UserError(
            f"privacy.noise_multiplier must be at least {LEAST_NOISE:g}, below which epsilon is "
            f"infinite, got {noise:g}; raise it."
        )
    num_protected = num_clients * config.privacy.groups_per_client
    what = "clients" if config.privacy.unit == "client" else "groups"
    if noise and config.privacy.delta * num_protected >= 1:
        raise UserError(
            f"privacy.delta must be below 1 / number of {what}, or giving away the data of one "
            f"would count as private, got {config.privacy.delta:g} with {num_protected} {what}; "
            "lower it."
        )


def _largest_clip(config: Config, num_clients: int, num_units: int) -> float:
    """Compute the clip with which every sum still fits, whoever is drawn.

    Those are the sum of one client's groups, and the mean of all with the expected divisor.
    """
    groups = config.privacy.groups_per_client
    drawn = groups if config.sampling == "poisson" else config.privacy.groups_per_round
    of_a_client = LIMIT / drawn if config.privacy.unit == "group" else math.inf
    if config.sampling != "poisson":
        return of_a_client
    return min(of_a_client, LIMIT * num_units / (num_clients * groups))


def _noise_key() -> str:
    """Read the secret that noise follows from; like every secret, it is in no configuration."""
    key = os.environ.get(NOISE_KEY, "")
    if len(key) < 32:
        raise UserError(
            f"noise needs a secret of at least 32 characters in {NOISE_KEY}, got {len(key)}, "
            "because whoever can repeat the noise can subtract it; put the output of "
            "`openssl rand -hex 32` into .env, the same on all machines."
        )
    return key


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
        raise UserError(
            f"privacy.max_epsilon must allow a round, which costs {one:.4g}, got {limit:g}; raise "
            "it, privacy.noise_multiplier or privacy.delta."
            if math.isfinite(one)
            else f"privacy.max_epsilon={limit:g} cannot be kept with so little noise; raise "
            "privacy.noise_multiplier."
        )
    return allowed
