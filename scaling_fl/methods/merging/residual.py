"""What a merge loses of the mean of the clients' products B A, computed from the factors.

The mean product is W = sum(share_k * B_k A_k), and the merged one is B A (with what the merge moved
the frozen weights by). The adapter's scale is the same on both sides.
"""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from scaling_fl.methods.merging.low_rank import Factors, side_by_side
from scaling_fl.methods.merging.merge import Round

Move = tuple[Tensor, Tensor]
"""left (out x k) and right (k x in): a pair's frozen weights move by left @ right."""


def residual(update: Tensor, round: Round, moves: Sequence[Move] = ()) -> float:
    """Return |W - merged| / |W|, over all pairs; 0 if W is 0.

    ``update`` is the merged one, and ``moves`` are those of the frozen weights of every pair.
    """
    after = round.start + update
    moved: Sequence[Move | None] = moves or [None] * len(round.pairs)
    jobs = (
        partial(
            _norms,
            *round.factors(pair),
            list(round.shares.values()),
            (pair.b_of(after), pair.a_of(after)),
            move,
        )
        for pair, move in zip(round.pairs, moved, strict=True)
    )
    norms = [found.tolist() for found in round.spread(jobs)]
    lost, whole = (math.hypot(*(pair[side] for pair in norms)) for side in (0, 1))
    return lost / whole if whole else 0.0


def _norms(
    a: Tensor, b: Tensor, shares: list[float], merged: tuple[Tensor, Tensor], move: Move | None
) -> Tensor:
    """Return |W - merged| and |W| of a pair.

    With the deviations dA_k = A_k - A and dB_k = B_k - B, and their means over the clients,
    W - B A = B mean(dA) + mean(dB) A + sum(share_k * dB_k dA_k). Nothing large cancels there, so
    that a small residual has as many digits as a large one.
    """
    left, right = (factor.double() for factor in merged)
    weights = torch.tensor(shares, dtype=torch.float64, device=a.device)[:, None, None]
    of_a, of_b = a - right, weights * (b - left)
    lost = [
        Factors(left, (weights * of_a).sum(0)),
        Factors(of_b.sum(0), right),
        *map(Factors, of_b, of_a),
    ]
    if move:
        lost.append(Factors(-move[0].double(), move[1].double()))
    whole = side_by_side([*map(Factors, weights * b, a.double())])
    return torch.tensor([side_by_side(lost).norm(), whole.norm()], device=a.device)
