"""Differential privacy of a round: clip the updates, add noise to their sum, adapt the clip."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scaling_fl.core.exact_sum import ExactSum
from scaling_fl.core.seeding import Randomness
from scaling_fl.core.state import GlobalState
from scaling_fl.federation.merge_round import Total
from scaling_fl.methods.merging.merge import Term
from scaling_fl.methods.privacy.mechanism import (
    LARGEST_STD,
    ROUNDINGS_IN_CLIP,
    AdaptiveClip,
    add_noise_,
    clip_,
    l2_norm,
    noisy_unclipped_fraction,
)

_LEAST_CLIP = 2.0**-40
CLIP = "privacy.clip"
"""The key under which the server remembers an adaptive clip."""


@dataclass(frozen=True, kw_only=True)
class Quantile:
    """How the clip follows a quantile of the norms, see ``AdaptiveClip``.

    ``std`` is the noise on the number of unclipped updates.
    """

    target: float
    learning_rate: float
    std: float


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """Bounds the influence of each unit on a round, and hides it; a unit is a client or a group.

    The order is: decode, clip, sum, add noise, divide by ``num_units``. If a unit is a group,
    each client clips its groups before it adds them up. Source: arXiv 1710.06963, algorithm 1.
    """

    clip: float
    noise_multiplier: float
    """The noise on the sum of the updates alone; an adaptive clip needs other noise, see
    ``Quantile``."""
    num_units: int
    """The expected number of units in a round, which does not depend on the data."""
    noise: Randomness
    """All workers have the same, and nobody else."""
    by_group: bool = False
    quantile: Quantile | None = None
    rounding: float = 0.0
    """With noise, ``rounding_norm``: by so much the bound of an update is below the clip."""
    largest_clip: float = math.inf
    """The upper limit of an adaptive clip, above which a sum could overflow."""

    @property
    def is_noisy(self) -> bool:
        return self.noise_multiplier > 0

    @property
    def share(self) -> float:
        """The share of each clipped update in the mean, 1 / num_units."""
        return 1.0 / self.num_units

    def clip_of(self, state: GlobalState) -> float:
        """Return the clip of the next round."""
        return float(state.memory.server.get(CLIP, self.clip))

    def bound(self, update: Tensor, clip: float) -> bool:
        """Scale an update in place to a norm of at most ``clip``; say whether it is unclipped.

        With noise, the norm stays at most ``clip`` when a sum rounds the update.
        """
        return clip_(update, l2_norm(update), clip - self.rounding) == 1.0

    def add_noise(self, integers: Tensor, *, clip: float, rng: np.random.Generator) -> None:
        """Add noise to the integers of a sum in which every update has the share ``share``."""
        add_noise_(integers, self.noise_multiplier * clip * self.share, rng)

    def next_clip(
        self, clip: float, num_unclipped: int, num_summed: int, rng: np.random.Generator
    ) -> float:
        """Return the clip after a round, from the number of unclipped updates."""
        assert self.quantile
        fraction = noisy_unclipped_fraction(
            num_unclipped,
            num_summed,
            num_expected=self.num_units,
            std=self.quantile.std,
            rng=rng,
        )
        now = AdaptiveClip(clip, self.quantile.target, self.quantile.learning_rate)
        least = max(_LEAST_CLIP, ROUNDINGS_IN_CLIP * self.rounding)
        clip = min(max(now.after(fraction).clip, least), self.largest_clip)
        if self.is_noisy:  # with a larger clip, the noise could overflow a sum
            clip = min(clip, LARGEST_STD * (1.0 - 1e-9) / (self.noise_multiplier * self.share))
        return clip

    def guard(self, state: GlobalState) -> "Guard":
        """Return the guard of the round after ``state``."""
        return Guard(self, state)


class Guard:
    """Protects one round: bounds every update before a sum, and adds noise to the sum."""

    def __init__(self, privacy: Privacy, state: GlobalState) -> None:
        self._privacy, self._device = privacy, state.vector.device
        self._clip = privacy.clip_of(state)
        self._round, self._history = state.round + 1, state.digest
        self.is_noisy = privacy.is_noisy
        self.num_unclipped = 0
        """The number of updates of this worker's clients with a norm of at most the clip."""

    def protect(self, total: Total) -> Total:
        """Wrap the function that sums terms; the result scales the terms in place."""

        def protected(terms: Iterable[Term]) -> ExactSum:
            # If a unit is a group, its client has clipped it already.
            sums = total(terms if self._privacy.by_group else self._bounded(terms))
            if self.is_noisy:
                self._privacy.add_noise(sums.integers, clip=self._clip, rng=self._rng("noise"))
            return sums

        return protected

    def _bounded(self, terms: Iterable[Term]) -> Iterator[Term]:
        for vector, share in terms:
            self.num_unclipped += self._privacy.bound(vector, self._clip)
            yield vector, share

    def remember(self, num_unclipped: int, num_summed: int) -> dict[str, Tensor]:
        """Return what the server must remember; the counts are over all workers."""
        if self._privacy.quantile is None:
            return {}
        rng = self._rng("clip noise")
        clip = self._privacy.next_clip(self._clip, num_unclipped, num_summed, rng)
        return {CLIP: torch.tensor(clip, dtype=torch.float64, device=self._device)}

    def _rng(self, purpose: str) -> np.random.Generator:
        return self._privacy.noise(purpose, self._round, history=self._history)
