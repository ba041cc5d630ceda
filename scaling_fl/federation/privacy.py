"""Differential privacy of a round: clip what arrives, add noise to the sum, adapt the clip."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scaling_fl.core.exact_sum import ExactSum
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.merge_round import Total
from scaling_fl.methods.merging.merge import Term
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
        return float(state.memory.server.get(CLIP, self.clip))

    def bound(self, update: Tensor, clip: float) -> bool:
        """Scale an update in place to a norm of at most ``clip``; say whether it was before."""
        return clip_(update, l2_norm(update), clip) == 1.0

    def add_noise(self, units: Tensor, *, clip: float, round_number: int) -> None:
        """Add noise to the units of a sum that every update entered with ``share``."""
        std = self.noise_multiplier * clip * self.share
        add_noise_(units, std, seed=self.seed, round_number=round_number)

    def next_clip(self, clip: float, round_number: int, num_within: int, num_summed: int) -> float:
        """Return the clip after a round, by how many updates were within it."""
        assert self.quantile
        fraction = noisy_fraction_within(
            num_within,
            num_summed,
            num_expected=self.num_units,
            std=self.quantile.std,
            seed=self.seed,
            round_number=round_number,
        )
        now = AdaptiveClip(clip, self.quantile.target, self.quantile.learning_rate)
        clip = min(max(now.after(fraction).clip, _LEAST_CLIP), self.largest_clip)
        if self.is_noisy:  # more noise than that no sum can hold, rounding included
            clip = min(clip, LARGEST_STD * (1.0 - 1e-9) / (self.noise_multiplier * self.share))
        return clip

    def guard(self, state: GlobalState) -> "Guard":
        """Return what protects the round after ``state``."""
        return Guard(self, state)


class Guard:
    """Protects one round: bounds every update before a sum, and adds noise to the sum."""

    def __init__(self, privacy: Privacy, state: GlobalState) -> None:
        self._privacy, self._device = privacy, state.vector.device
        self._clip, self._round = privacy.clip_of(state), state.round + 1
        self.is_noisy = privacy.is_noisy
        self.num_within_clip = 0
        """How many updates of this worker's clients were short enough."""

    def protect(self, total: Total) -> Total:
        """Wrap the way in which terms are summed; the terms are scaled in place."""

        def protected(terms: Iterable[Term]) -> ExactSum:
            # Groups were bounded by their client, one by one, before it added them up.
            sums = total(terms if self._privacy.by_group else self._bounded(terms))
            if self.is_noisy:
                self._privacy.add_noise(sums.units, clip=self._clip, round_number=self._round)
            return sums

        return protected

    def _bounded(self, terms: Iterable[Term]) -> Iterator[Term]:
        for vector, share in terms:
            self.num_within_clip += self._privacy.bound(vector, self._clip)
            yield vector, share

    def remember(self, num_within: int, num_summed: int) -> dict[str, Tensor]:
        """Return what the server remembers of the round, by the counts of all workers."""
        if self._privacy.quantile is None:
            return {}
        clip = self._privacy.next_clip(self._clip, self._round, num_within, num_summed)
        return {CLIP: torch.tensor(clip, dtype=torch.float64, device=self._device)}
