"""The units inside every client that privacy protects one by one."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling_fl.learning.training.local import TrainingResult
from scaling_fl.methods.sampling import poisson_groups, sample_groups


class GroupResult(NamedTuple):
    """What the groups that a client drew came to."""

    result: TrainingResult
    num_drawn: int
    num_within_clip: int


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The groups of every client, and their part in a round.

    ``examples[client]`` lists the groups of a client. In a round it draws ``per_round`` of them,
    or with ``poisson`` each by itself so that so many are expected, trains on each from what it
    received, and sends the sum of their updates, each bounded by ``bound(update, clip)``, which
    says whether it left the update alone.
    """

    examples: Sequence[Sequence[NDArray[np.int64]]]
    per_round: int
    poisson: bool
    seed: int
    bound: Callable[[Tensor, float], bool]

    def train(
        self,
        client: int,
        round_number: int,
        *,
        received: Tensor,
        trained: Tensor,
        clip: float,
        learn: Callable[[NDArray[np.int64], int], TrainingResult],
    ) -> GroupResult:
        """Train on a draw of the client's groups; ``trained`` then holds the updates' sum.

        ``learn(examples, group)`` trains from ``received`` and leaves the result in ``trained``.
        The sum is rounded once, to fp32, which the bound leaves room for, so that one group moves
        the sum by no more than ``clip``. For the same reason a group that diverges is left out
        alone, unless all of them do.
        """
        groups = self.examples[client]
        draw = poisson_groups if self.poisson else sample_groups
        drawn = draw(
            len(groups),
            self.per_round,
            seed=self.seed,
            round_number=round_number,
            client=client,
        )
        bound = clip * (1.0 - len(groups) * 2.0**-22)
        total = torch.zeros_like(received, dtype=torch.float64)
        results, num_within = [], 0
        for group in drawn:
            result = learn(groups[group], group)
            update = trained.sub_(received)
            if math.isfinite(result.loss) and torch.isfinite(update).all():
                results.append(result)
                num_within += self.bound(update, bound)
                total += update
        trained.copy_(total)
        if drawn and not results:
            trained.fill_(math.nan)
        return GroupResult(TrainingResult.over(results), len(drawn), num_within)
