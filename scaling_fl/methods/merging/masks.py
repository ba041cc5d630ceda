"""Merges of masked updates: each client's update keeps some coordinates, or the merge does."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from scaling_fl.methods.merging.means import mean
from scaling_fl.methods.merging.merge import Merge, Round, SentTerm, Update, Updates
from scaling_fl.methods.merging.signs import ties, trim

_UNIT = 2.0**-20
"""The share of a client where all count alike, in sums of up to 2**20 clients."""


def dare(drop: float) -> Merge:
    """Drop coordinates at random, a share of ``drop``, divide the others by 1 - drop, and average.

    The mean over the draws is the update. A draw depends on the seed, the round and the client.
    Source: arXiv 2311.03099 (DARE), section 3.2.
    """
    return _of_masked(lambda u, round: _drop(u, round, drop), mean())


def dare_ties(drop: float, density: float) -> Merge:
    """Drop and rescale as ``dare``, then merge as ``ties``. Source: arXiv 2311.03099."""
    return _of_masked(lambda u, round: _drop(u, round, drop), ties(density))


def magnitude_mask(density: float) -> Merge:
    """Keep the largest coordinates of each update, a share of ``density``, and average.

    Source: arXiv 2311.03099, section 4.5 (magnitude-based pruning, without rescaling).
    """
    return _of_masked(lambda u, round: trim(u.vector, density), mean())


def consensus_mask(threshold: float, agreeing: int) -> Merge:
    """Average, and keep the coordinates of the mean that enough clients hold to be their own.

    A coordinate is a client's own where |u_k| > threshold * |mean - u_k|. It is kept if it is that
    of at least ``agreeing`` clients, or of all if there are fewer.
    Source: arXiv 2405.07813 (Consensus Merging), equations 4 and 5, with a mean as merged vector.
    """

    def merge(updates: Updates, round: Round) -> Tensor:
        merged = round.total((u.vector, u.share) for u in updates.again())

        def masks() -> Iterator[SentTerm]:
            for u in updates.again():
                own = u.vector.abs() > (merged - u.vector).abs_().mul_(threshold)
                yield own.float(), _UNIT, None

        num_clients = len(round.shares)
        votes = round.mean_over_senders(masks()).mul_(num_clients).round_()
        return merged.mul_(votes >= min(agreeing, num_clients))

    return merge


class _Masked:
    """Updates, each changed as it arrives."""

    def __init__(self, updates: Updates, change: Callable[[Update], Tensor]) -> None:
        self._updates, self._change = updates, change

    def once(self) -> Iterator[Update]:
        return self._changed(self._updates.once())

    def again(self) -> Iterator[Update]:
        return self._changed(self._updates.again())

    def _changed(self, updates: Iterator[Update]) -> Iterator[Update]:
        for u in updates:
            yield u._replace(vector=self._change(u))


def _of_masked(change: Callable[[Update, Round], Tensor], then: Merge) -> Merge:
    def merge(updates: Updates, round: Round) -> Tensor:
        return then(_Masked(updates, lambda u: change(u, round)), round)

    return merge


def _drop(update: Update, round: Round, drop: float) -> Tensor:
    draws = torch.rand(update.vector.numel(), generator=round.random(update.client))
    return update.vector.mul_((draws >= drop).to(update.vector.device)).div_(1.0 - drop)
