"""Differential privacy of a round: clip what arrives, add noise to the sum, adapt the clip."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scaling_fl.core.state import GlobalState
from scaling_fl.methods.privacy.mechanism import (
    LARGEST_STD,
    AdaptiveClip,
    add_noise_,
    clip_,
    l2_norm,
    noisy_fraction_within,
)

_LEAST_CLIP = 2.0**-40
CLIP = "privacy.clip"
"""Where the global state remembers an adaptive clip."""


@dataclass(frozen=True, kw_only=True)
class Quantile:
    """How the clip follows a quantile of the norms, see ``AdaptiveClip``.

    ``std`` is the noise on the number of updates within the clip.
    """

    target: float
    learning_rate: float
    std: float


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """Bounds the influence of every unit (a client, or a group of one) on a round, and hides it.

    Order: decode, clip, sum, noise, divide by ``num_units``, the expected number of units of a
    round, which does not depend on the data. Where the unit is a group, clients clip, before they
    add up their groups. Source: arXiv 1710.06963, algorithm 1.
    """

    clip: float
    noise_multiplier: float
    """Of the updates; an adaptive clip takes its own part of the budget, see ``Quantile``."""
    num_units: int
    seed: int
    by_group: bool = False
    quantile: Quantile | None = None
    largest_clip: float = math.inf
    """What an adaptive clip must not exceed, or a sum could overflow."""

    @property
    def is_noisy(self) -> bool:
        return self.noise_multiplier > 0

    @property
    def share(self) -> float:
        """What every clipped update enters the mean with."""
        return 1.0 / self.num_units

    def clip_of(self, state: GlobalState) -> float:
        """Return the clip of the next round."""
        return float(state.memory[CLIP]) if CLIP in state.memory else self.clip

    def bound(self, update: Tensor, clip: float) -> bool:
        """Scale an update in place to a norm of at most ``clip``; say whether it was before."""
        return clip_(update, l2_norm(update), clip) == 1.0

    def add_noise(self, units: Tensor, *, clip: float, round_number: int) -> None:
        """Add noise to the units of a sum that every update entered with ``share``."""
        std = self.noise_multiplier * clip * self.share
        add_noise_(units, std, seed=self.seed, round_number=round_number)

    def adapt(self, state: GlobalState, *, num_within: int, num_summed: int) -> None:
        """Step the clip of a state whose round is done, by how many updates were within it."""
        if self.quantile is None:
            return
        fraction = noisy_fraction_within(
            num_within,
            num_summed,
            num_expected=self.num_units,
            std=self.quantile.std,
            seed=self.seed,
            round_number=state.round + 1,
        )
        now = AdaptiveClip(self.clip_of(state), self.quantile.target, self.quantile.learning_rate)
        clip = min(max(now.after(fraction).clip, _LEAST_CLIP), self.largest_clip)
        if self.is_noisy:  # more noise than that no sum can hold, rounding included
            clip = min(clip, LARGEST_STD * (1.0 - 1e-9) / (self.noise_multiplier * self.share))
        state.memory[CLIP] = torch.tensor(clip, dtype=torch.float64, device=state.vector.device)
