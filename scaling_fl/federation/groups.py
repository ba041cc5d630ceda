"""The groups of a client's examples, where privacy protects a group in place of a client."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling_fl.learning.training.local import TrainingResult
from scaling_fl.methods.sampling import SampleGroups


class GroupResult(NamedTuple):
    """The training of the groups that a client drew."""

    result: TrainingResult
    """Over the groups whose updates are finite."""
    num_drawn: int
    num_unclipped: int


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The groups of every client, and what a client does with its groups in a round.

    A client samples some of its groups. It trains on each of them from the vector that it received,
    bounds the update of each, and sends the sum of the bounded updates.
    """

    examples: Sequence[Sequence[NDArray[np.int64]]]
    """``examples[client][group]`` are indices of training examples."""
    per_round: int
    """The number of groups that a client with ``most`` samples, or the expected number."""
    most: int
    """The number of groups that no client exceeds; what protects them depends on no other."""
    sample: SampleGroups
    bound: Callable[[Tensor, float], bool]
    """(update, clip) -> whether the norm was at most ``clip``; scales the update in place."""

    def train(
        self,
        client: int,
        round_number: int,
        history: str,
        *,
        received: Tensor,
        trained: Tensor,
        clip: float,
        learn: Callable[[NDArray[np.int64], int], TrainingResult],
    ) -> GroupResult:
        """Train on a sample of the client's groups and write the sum of the updates to ``trained``.

        ``history`` is the digest of all rounds before, which secret draws depend on.
        ``learn(examples, group)`` trains from ``received`` and writes the result to ``trained``.
        One group must change the sum by at most ``clip``. Therefore the bound of an update is a
        little below ``clip``, because the sum is rounded once, to fp32. For the same reason, a
        group that diverges is left out alone. If all groups diverge, the sum is NaN.
        """
        groups = self.examples[client]
        drawn = self.sample(len(groups), round_number, client, history)
        bound = clip * (1.0 - self.most * 2.0**-22)
        total = torch.zeros_like(received, dtype=torch.float64)
        results, num_unclipped = [], 0
        for group in drawn:
            result = learn(groups[group], group)
            update = trained.sub_(received)
            if math.isfinite(result.loss) and torch.isfinite(update).all():
                results.append(result)
                num_unclipped += self.bound(update, bound)
                total += update
        trained.copy_(total)
        if drawn and not results:
            trained.fill_(math.nan)
        return GroupResult(TrainingResult.over(results), len(drawn), num_unclipped)
