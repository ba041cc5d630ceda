"""Merges by coordinates, on the products B A of an adapter in place of its factors.

The factors of a product are not unique: a client that has B G and inv(G) A has the same model, and
another merge of its coordinates. On products, the merge depends on the clients' models alone.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from scaling_fl.core.exact_sum import LIMIT
from scaling_fl.methods.merging.low_rank import Factors, truncate
from scaling_fl.methods.merging.merge import Merge, Round, Update, Updates
from scaling_fl.methods.pairs import Pair


def on_products(inner: Merge, scale: float) -> Merge:
    """Merge how the clients change scale * B A of every pair, and return the nearest factors.

    The inner merge sees one vector for each client: the change of every product (out x in, flat),
    then the update outside the pairs. ``scale`` is that of the adapter. Its memory is that of
    these vectors, and a pair takes an SVD of a dense (out x in) matrix.
    """

    def merge(updates: Updates, round: Round) -> Tensor:
        sizes = [out * num_in for out, num_in in (pair.shape for pair in round.pairs)]
        outside = _outside(round)
        rest = int(outside.count_nonzero())
        inside = round.of_size(sum(sizes) + rest, _tensors(sizes, round))
        *changes, others = inner(_Changes(updates, round, outside, scale), inside).split(
            [*sizes, rest]
        )
        update = torch.empty_like(round.start)
        update[outside] = others
        jobs = (
            partial(_nearest, pair, change, scale, round.start)
            for pair, change in zip(round.pairs, changes, strict=True)
        )
        for pair, result in zip(round.pairs, round.spread(jobs), strict=True):
            assert pair.a is not None
            a, b = result.split([pair.rank * side for side in reversed(pair.shape)])
            update[pair.a] = a - round.start[pair.a]
            update[pair.b] = b - round.start[pair.b]
        return update

    return merge


class _Changes:
    """The updates, with the changes of the products in place of those of the factors."""

    def __init__(self, updates: Updates, round: Round, outside: Tensor, scale: float) -> None:
        self._updates, self._round = updates, round
        self._outside, self._scale = outside, scale

    def once(self) -> Iterator[Update]:
        return map(self._changed, self._updates.once())

    def again(self) -> Iterator[Update]:
        return map(self._changed, self._updates.again())

    def together(self) -> Iterator[Sequence[Update]]:
        for some in self._updates.together():
            yield [self._changed(update) for update in some]

    def _changed(self, update: Update) -> Update:
        trained = self._round.trained(update)
        parts = [self._scale * _change(pair, trained, update.vector) for pair in self._round.pairs]
        # A sum takes no larger numbers; a client that comes there has diverged.
        vector = torch.cat([*parts, update.vector[self._outside]]).clamp_(-LIMIT, LIMIT)
        return update._replace(vector=vector, sent=None)


def _change(pair: Pair, trained: Tensor, update: Tensor) -> Tensor:
    """Return how an update changed the product of a pair: flat, fp32.

    With B and A that the client came to, B A - (B - dB) (A - dA) = dB A + (B - dB) dA.
    """
    (b, d_b), (a, d_a) = (
        [of(vector).double() for vector in (trained, update)] for of in (pair.b_of, pair.a_of)
    )
    return (d_b @ a + (b - d_b) @ d_a).flatten().float()


def _nearest(pair: Pair, change: Tensor, scale: float, start: Tensor) -> Tensor:
    """Return A and B nearest to the changed product, flat, one after the other."""
    before = pair.b_of(start).double() @ pair.a_of(start).double()
    after = before + change.view(pair.shape).double() / scale
    ones = torch.eye(pair.shape[1], dtype=torch.float64, device=after.device)
    best = truncate(Factors(after, ones), pair.rank).factors
    return torch.cat([best.right.flatten(), best.left.flatten()]).float()


def _outside(round: Round) -> Tensor:
    """Mark the coordinates outside the pairs."""
    marks = torch.ones_like(round.start, dtype=torch.bool)
    for pair in round.pairs:
        assert pair.a is not None
        marks[pair.a], marks[pair.b] = False, False
    return marks


def _tensors(sizes: list[int], round: Round) -> list[slice]:
    """Return the places of the products and of the tensors outside the pairs."""
    of_pairs = [place for pair in round.pairs for place in (pair.a, pair.b)]
    beside = [place.stop - place.start for place in round.tensors if place not in of_pairs]
    places, offset = [], 0
    for size in [*sizes, *beside]:
        places.append(slice(offset, offset + size))
        offset += size
    return places
