"""Merges of masked updates: each client's update keeps some coordinates, or the merge does."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from scaling_fl.methods.merging.means import task_arithmetic
from scaling_fl.methods.merging.merge import Merge, Round, Update, Updates
from scaling_fl.methods.merging.signs import TrimBy, apply_marks, ties, trim

_CHUNK = 1 << 16  # draws that stay in a core's cache


def dare(drop: float) -> Merge:
    """Drop coordinates at random, a share of ``drop``, average, and divide by 1 - drop.

    The mean over the draws is the update. A draw depends on the seed, the round and the client.
    Source: arXiv 2311.03099 (DARE), section 3.2.
    """
    return _rescaled(task_arithmetic(1.0), drop)


def dare_ties(drop: float, density: float, trim_by: TrimBy = "vector") -> Merge:
    """Drop and rescale as ``dare``, then merge as ``ties``. Source: arXiv 2311.03099."""
    return _rescaled(ties(density, trim_by), drop)


def magnitude_mask(density: float, trim_by: TrimBy = "vector") -> Merge:
    """Keep the largest coordinates of each update, a share of ``density``, and average.

    Source: arXiv 2311.03099, section 4.5 (magnitude-based pruning, without rescaling).
    """
    return _of_masked(
        lambda u, round: trim(u.vector, round, density, trim_by), task_arithmetic(1.0)
    )


def consensus_mask(threshold: float, agreeing: int) -> Merge:
    """Average, and keep the coordinates of the mean that enough clients hold to be their own.

    A coordinate is a client's own where |u_k| > threshold * |mean - u_k|. It is kept if it is that
    of at least ``agreeing`` clients, or of all if there are fewer.
    Source: arXiv 2405.07813 (Consensus Merging), equations 4 and 5, with a mean as merged vector.
    """

    def merge(updates: Updates, round: Round) -> Tensor:
        merged = round.total((u.vector, u.share) for u in updates.again())

        def is_own(u: Update, place: slice) -> Tensor:
            return _is_own(u.vector[place], merged[place], threshold)

        enough = min(agreeing, len(round.shares))
        return apply_marks(merged, round.count_by_block(updates, is_own) >= enough)

    return merge


def _is_own(values: Tensor, merged: Tensor, threshold: float) -> Tensor:
    if values.device.type != "cpu":
        return values.abs() > (merged - values).abs_().mul_(threshold)
    others = merged.numpy() - values.numpy()  # numpy takes half of torch's time
    np.abs(others, out=others)
    others *= threshold
    return torch.from_numpy(np.abs(values.numpy()) > others)


class _Masked:
    """Updates, each changed as it arrives."""

    def __init__(self, updates: Updates, change: Callable[[Update], Tensor]) -> None:
        self._updates, self._change = updates, change

    def once(self) -> Iterator[Update]:
        return self._changed(self._updates.once())

    def again(self) -> Iterator[Update]:
        return self._changed(self._updates.again())

    def together(self) -> Iterator[Sequence[Update]]:
        return ((update,) for update in self.again())

    def _changed(self, updates: Iterator[Update]) -> Iterator[Update]:
        for u in updates:
            yield u._replace(vector=self._change(u))


def _of_masked(change: Callable[[Update, Round], Tensor], then: Merge) -> Merge:
    def merge(updates: Updates, round: Round) -> Tensor:
        return then(_Masked(updates, lambda u: change(u, round)), round)

    return merge


def _rescaled(then: Merge, drop: float) -> Merge:
    """Merge what is not dropped, and divide the result: a term may be too large for a sum."""
    merge = _of_masked(lambda u, round: _drop(u, round, drop), then)
    return lambda updates, round: merge(updates, round).div_(1.0 - drop)


def _drop(update: Update, of: Round, drop: float) -> Tensor:
    """Set coordinates to 0 at random, in place: each is drawn by 32 bits."""
    source = np.random.SFC64(of.random(update.client).initial_seed())
    for part in update.vector.split(_CHUNK):
        draws = source.random_raw(_CHUNK // 2).view(np.uint32)[: part.numel()]
        kept = torch.from_numpy(draws >= round(drop * 2**32))
        apply_marks(part, kept.to(part.device))
    return update.vector
