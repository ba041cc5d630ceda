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


def packed_batches(
    lengths: Indices, indices: Indices, *, num_rows: int, width: int, rng: np.random.Generator
) -> list[Indices]:
    """Cut one epoch over ``indices``, in random order, into batches of ``num_rows`` full rows.

    A batch ends before the example that fits into none of its rows of ``width`` tokens.
    """
    order = rng.permutation(indices)
    batches, begin = [], 0
    free = [width] * num_rows
    for position, length in enumerate(lengths[order].tolist()):
        row = _first_with_room(free, length)
        if row is None:
            batches.append(order[begin:position])
            begin, free, row = position, [width] * num_rows, 0
        free[row] -= length
    return [*batches, order[begin:]]


def first_fit(lengths: Indices, width: int) -> list[list[int]]:
    """Put examples into rows of ``width`` tokens, each into the first row with room for it.

    Returns the places in ``lengths`` of the examples of each row.
    """
    free: list[int] = []
    rows: list[list[int]] = []
    for place, length in enumerate(lengths.tolist()):
        row = _first_with_room(free, length)
        if row is None:
            row = len(rows)
            free.append(width)
            rows.append([])
        free[row] -= length
        rows[row].append(place)
    return rows


def _first_with_room(free: list[int], length: int) -> int | None:
    return next((row for row, room in enumerate(free) if room >= length), None)


def evaluation_batches(lengths: Indices, batch_size: int) -> list[Indices]:
    """Cut all examples into fixed batches of similar length, the longest first.

    The first batch takes the most memory, so that a model that does not fit fails at once.
    """
    return _cut(np.argsort(-lengths, kind="stable"), batch_size)


def _cut(order: Indices, size: int) -> list[Indices]:
    return [order[first : first + size] for first in range(0, len(order), size)]
