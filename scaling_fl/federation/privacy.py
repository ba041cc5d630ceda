"""Client-level differential privacy of a round: clip what arrives, add noise to the sum."""

from dataclasses import dataclass

from torch import Tensor

from scaling_fl.methods.privacy import add_noise_, clip_, l2_norm


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """Bounds every client's influence on a round, and hides it in noise.

    Order: decode, clip, sum, noise, divide by the number of clients that were asked, which
    does not depend on the data. Source: arXiv 1710.06963, algorithm 1.
    """

    clip: float
    noise_multiplier: float
    seed: int

    @property
    def is_noisy(self) -> bool:
        return self.noise_multiplier > 0

    def bound(self, update: Tensor) -> None:
        """Scale an update in place to a norm of at most ``clip``."""
        clip_(update, l2_norm(update), self.clip)

    def add_noise(self, units: Tensor, *, share: float, round_number: int) -> None:
        """Add noise to the units of a sum that every update entered with the same ``share``."""
        std = self.noise_multiplier * self.clip * share
        add_noise_(units, std, seed=self.seed, round_number=round_number)
