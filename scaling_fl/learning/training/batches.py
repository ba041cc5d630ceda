"""Which examples go together in a batch, and in which order the batches come."""

import numpy as np

from scaling_fl.learning.task import Indices

_BATCHES_PER_GROUP = 50


def epoch_batches(
    lengths: Indices,
    indices: Indices,
    *,
    batch_size: int,
    rng: np.random.Generator,
    length_grouped: bool = False,
) -> list[Indices]:
    """Cut one epoch over ``indices``, in random order, into batches; the last may be smaller.

    ``length_grouped`` puts examples of similar length into one batch, for less padding; the order
    of the batches stays random.
    """
    order = rng.permutation(indices)
    if not length_grouped:
        return _cut(order, batch_size)
    groups = _cut(order, batch_size * _BATCHES_PER_GROUP)
    ordered = [group[np.argsort(-lengths[group], kind="stable")] for group in groups]
    batches = [batch for group in ordered for batch in _cut(group, batch_size)]
    return [batches[position] for position in rng.permutation(len(batches))]


def evaluation_batches(lengths: Indices, batch_size: int) -> list[Indices]:
    """Cut all examples into fixed batches of similar length, the longest first.

    The first batch takes the most memory, so that a model that does not fit fails at once.
    """
    return _cut(np.argsort(-lengths, kind="stable"), batch_size)


def _cut(order: Indices, size: int) -> list[Indices]:
    return [order[first : first + size] for first in range(0, len(order), size)]
