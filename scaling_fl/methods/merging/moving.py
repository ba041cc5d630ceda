"""Merges that lose nothing of the mean of products, because they move the frozen weights as well.

The mean of the clients' products B A has a larger rank than the adapter, but the frozen weights
take a matrix of any rank. The clients need the move in the next round (see ``federation.base``).
"""

import math

import torch
from torch import Generator, Tensor

from scaling_fl.methods.merging.merge import Merge, Round, Updates
from scaling_fl.methods.pairs import Pair


def exact() -> Merge:
    """Average A and B, and add to the frozen weights what the mean of the products has beyond B A.

    Everything outside the pairs is averaged. Source: arXiv 2410.09432 (FedEx-LoRA), section 3.
    """

    def merge(updates: Updates, round: Round) -> Tensor:
        update, products = _mean_and_products(updates, round)
        after = round.start + update
        round.move_base(
            [
                (torch.cat([left, -pair.b_of(after)], 1), torch.cat([right, pair.a_of(after)]))
                for pair, (left, right) in zip(round.pairs, products, strict=True)
            ]
        )
        return update

    return merge


def stack() -> Merge:
    """Add the mean of the products to the frozen weights, and start fresh adapters: B = 0.

    A is drawn anew in every round. Everything outside the pairs is averaged.
    Source: arXiv 2409.05976 (FLoRA), section 3.
    """

    def merge(updates: Updates, round: Round) -> Tensor:
        update, products = _mean_and_products(updates, round)
        round.move_base(products)
        draws = round.random(-1)  # those of no client
        for pair in round.pairs:
            assert pair.a is not None
            update[pair.a] = _fresh(pair, draws).to(update.device) - round.start[pair.a]
            update[pair.b] = -round.start[pair.b]
        return update

    return merge


def _fresh(pair: Pair, draws: Generator) -> Tensor:
    """Draw A uniformly from +- 1 / sqrt(in), as PEFT does at first."""
    _, num_in = pair.shape
    return (torch.rand(pair.rank * num_in, generator=draws) * 2 - 1) / math.sqrt(num_in)


def _mean_and_products(
    updates: Updates, round: Round
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Return the mean update, and the factors of the mean product of each pair, in fp32.

    The factors are [share * B, ...] and [A; ...], without components that a client does not hold:
    as many in every pair, but not the same ones where clients hold the largest of each pair.
    """
    update = round.total((u.vector, u.share) for u in updates.once())
    shares = torch.tensor(list(round.shares.values()), dtype=torch.float64)
    found = []
    for pair in round.pairs:
        a, b = round.factors(pair)
        weighted = b.double() * shares.to(b.device)[:, None, None]
        # share * B of the clients side by side: (out, clients * rank)
        left = weighted.permute(1, 0, 2).reshape(pair.shape[0], -1).float()
        found.append((left, a.reshape(-1, pair.shape[1])))
    # A client does not hold a component whose row of A is 0.
    absent = [~right.any(1) for _, right in found]
    count = max((int((~each).sum()) for each in absent), default=0)
    held = [each.sort(stable=True).indices[:count] for each in absent]
    return update, [
        (left[:, places], right[places]) for (left, right), places in zip(found, held, strict=True)
    ]
