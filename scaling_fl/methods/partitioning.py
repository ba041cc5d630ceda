"""The owner of each training example: seeded partitions; each example is in exactly one."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from scaling_fl.core.seeding import numpy_generator

Indices = NDArray[np.int64]
Partitioner = Callable[[Indices, int, np.random.Generator], list[Indices]]
"""(labels, num_clients, rng) -> the examples of each client, unsorted.

A partitioner of one's own may be any function like this one, which gives client 0 half of all:

    def one_large(labels, num_clients, rng):
        first, rest = np.array_split(rng.permutation(len(labels)), 2)
        return [first, *np.array_split(rest, num_clients - 1)]
"""

_BALANCING_STEPS = 100


def iid(labels: Indices, num_clients: int, rng: np.random.Generator) -> list[Indices]:
    """Deal all examples at random; the sizes differ by at most one."""
    return np.array_split(rng.permutation(len(labels)), num_clients)


def label_sorted(labels: Indices, num_clients: int, rng: np.random.Generator) -> list[Indices]:
    """Sort by label and cut into near-equal chunks: most clients have one or two labels."""
    return np.array_split(np.argsort(labels, kind="stable"), num_clients)


def dirichlet_by_class(alpha: float, min_examples: int) -> Partitioner:
    """For each class, draw the clients' shares from Dir(alpha): sizes and labels are skewed.

    Source: Yurochkin et al., arXiv 1905.12022, section 4; the minimum per client is ours.
    """

    def split(labels: Indices, num_clients: int, rng: np.random.Generator) -> list[Indices]:
        owner = np.empty(len(labels), dtype=np.int64)
        for pool in _class_pools(labels, rng):
            shares = rng.dirichlet(np.full(num_clients, alpha))
            ends = np.rint(np.cumsum(shares)[:-1] * len(pool)).astype(np.int64)
            owner[pool] = np.searchsorted(ends, np.arange(len(pool)), side="right")
        partitions = [np.flatnonzero(owner == client) for client in range(num_clients)]
        return _raise_to_minimum(partitions, rng, min_examples)

    return split


def dirichlet_by_client(alpha: float) -> Partitioner:
    """For each client, draw the shares of the classes from Dir(alpha): only labels are skewed.

    The sizes are near-equal. The draws are balanced together, so that each example has an owner;
    rounding each draw alone would lose examples.

    Source: Kuo et al., FLASC, arXiv 2406.05233 (their split loses examples by rounding).
    """

    def split(labels: Indices, num_clients: int, rng: np.random.Generator) -> list[Indices]:
        pools = _class_pools(labels, rng)
        mixes = rng.dirichlet(np.full(len(pools), alpha), size=num_clients)  # (clients, classes)
        sizes = np.full(num_clients, len(labels) // num_clients, dtype=np.int64)
        sizes[: len(labels) % num_clients] += 1
        counts = _counts_with_margins(mixes, sizes, np.array([len(pool) for pool in pools]))
        ends = np.cumsum(counts, axis=0)
        cut = [np.split(pool, ends[:-1, label]) for label, pool in enumerate(pools)]
        return [np.concatenate([slices[client] for slices in cut]) for client in range(num_clients)]

    return split


def by_owner(pooled: float = 0.0) -> Partitioner:
    """Give each example to its owner: ``owners`` (the client of each example) are the labels.

    A random share, ``pooled``, of every client's examples is put together and dealt anew: each
    client gets back as many as it gave. Source: FLASC, arXiv 2406.05233, for Reddit.
    """

    def split(owners: Indices, num_clients: int, rng: np.random.Generator) -> list[Indices]:
        found = [np.flatnonzero(owners == client) for client in range(num_clients)]
        if not pooled:
            return found
        shuffled = [rng.permutation(examples) for examples in found]
        counts = [round(pooled * len(examples)) for examples in found]
        pool = [each[:count] for each, count in zip(shuffled, counts, strict=True)]
        dealt = np.split(rng.permutation(np.concatenate(pool)), np.cumsum(counts)[:-1])
        kept = [each[count:] for each, count in zip(shuffled, counts, strict=True)]
        return [np.concatenate(pair) for pair in zip(kept, dealt, strict=True)]

    return split


PARTITIONERS: dict[str, Callable[[float, int, float], Partitioner]] = {
    "iid": lambda alpha, min_examples, pooled: iid,
    "label_sorted": lambda alpha, min_examples, pooled: label_sorted,
    "dirichlet_by_class": lambda alpha, min_examples, pooled: dirichlet_by_class(
        alpha, min_examples
    ),
    "dirichlet_by_client": lambda alpha, min_examples, pooled: dirichlet_by_client(alpha),
    "column": lambda alpha, min_examples, pooled: by_owner(pooled),
}
"""(alpha, min_examples, pooled) -> partitioner; that of a column takes owners for labels."""


def partition(
    labels: Indices,
    *,
    kind: str | Partitioner,
    num_clients: int,
    seed: int,
    alpha: float = 1.0,
    min_examples: int = 1,
    pooled: float = 0.0,
) -> list[Indices]:
    """Give each example to exactly one client; return the sorted example indices of each client.

    ``kind`` is the name of a partitioner, or one of the user, whose result is checked. The result
    depends on the arguments alone, so all workers compute the same partitions.

    Raises:
        ValueError: the kind is unknown, there are too few examples for the clients, or the user's
            partitioner does not give each example to one client.
    """
    if not isinstance(kind, str):
        found = kind(labels, num_clients, numpy_generator(seed, "partition"))
        return _checked(found, len(labels), num_clients)
    if kind not in PARTITIONERS:
        known = ", ".join(PARTITIONERS)
        raise ValueError(
            f"partition.kind must be one of {known}, got {kind!r}; choose one of them."
        )
    _check_feasible(len(labels), num_clients, alpha, min_examples)
    rng = numpy_generator(seed, "partition")
    partitions = PARTITIONERS[kind](alpha, min_examples, pooled)(labels, num_clients, rng)
    return [np.sort(examples).astype(np.int64, copy=False) for examples in partitions]


def owners_alike(
    labels: Indices, train_labels: Indices, partitions: Sequence[Indices], *, seed: int
) -> Indices:
    """Return a client for each test example, so that a client's are labelled as its training ones.

    The test examples of a label are dealt at random, in proportion to the training examples of the
    label that the clients own, or to all that they own if nobody owns any of the label.
    """
    rng = numpy_generator(seed, "test partition")
    owners = np.empty(len(labels), dtype=np.int64)
    for label, pool in zip(np.unique(labels), _class_pools(labels, rng), strict=True):
        owned = np.array([np.count_nonzero(train_labels[each] == label) for each in partitions])
        if not owned.any():
            owned = np.array([len(each) for each in partitions])
        ends = np.rint(np.cumsum(owned) / owned.sum() * len(pool)).astype(np.int64)
        owners[pool] = np.searchsorted(ends, np.arange(len(pool)), side="right")
    return owners


def _checked(found: Sequence[Indices], num_examples: int, num_clients: int) -> list[Indices]:
    """Sort the examples of each client, once each example has one owner and no client has none."""
    rule = f"partition.kind must give each of {num_examples} examples to one of {num_clients}"
    partitions = [np.sort(np.asarray(each, dtype=np.int64)) for each in found]
    if len(partitions) != num_clients or not all(map(len, partitions)):
        sizes = [len(each) for each in partitions]
        raise ValueError(
            f"{rule} clients, got {len(sizes)} clients of {sizes[:20]} examples; return an array "
            "with examples for each client."
        )
    given = np.sort(np.concatenate(partitions))
    if not np.array_equal(given, np.arange(num_examples)):
        raise ValueError(
            f"{rule} clients, got {len(given)} indices of {len(np.unique(given))} examples; return "
            f"every index from 0 to {num_examples - 1} once."
        )
    return partitions


def _check_feasible(num_examples: int, num_clients: int, alpha: float, min_examples: int) -> None:
    if num_clients < 1:
        raise ValueError(f"num_clients must be at least 1, got {num_clients}; name a client.")
    if not (np.isfinite(alpha) and alpha > 0):
        raise ValueError(
            f"partition.alpha must be a finite number above 0, got {alpha}; "
            "try 0.1 for strong skew or 100 for almost none."
        )
    if min_examples < 0:
        raise ValueError(
            f"partition.min_examples must be at least 0, got {min_examples}; use 1 or more."
        )
    if num_examples < num_clients * min_examples:
        raise ValueError(
            f"partition.min_examples={min_examples} for {num_clients} clients needs "
            f"{num_clients * min_examples} training examples, got {num_examples}; "
            "use fewer clients, a smaller minimum or more data."
        )


def _class_pools(labels: Indices, rng: np.random.Generator) -> list[Indices]:
    """List the examples of each label that occurs, in random order."""
    return [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]


def _raise_to_minimum(
    partitions: list[Indices], rng: np.random.Generator, min_examples: int
) -> list[Indices]:
    """Move random examples, one by one, from the largest client to clients below the minimum."""
    sizes = np.array([len(examples) for examples in partitions])
    needy = np.flatnonzero(sizes < min_examples)
    moved: dict[int, list[int]] = {int(client): [] for client in needy}
    stock: dict[int, list[int]] = {}
    for client in moved:
        while sizes[client] < min_examples:
            donor = int(sizes.argmax())
            if donor not in stock:
                stock[donor] = rng.permutation(partitions[donor]).tolist()
            moved[client].append(stock[donor].pop())
            sizes[donor] -= 1
            sizes[client] += 1
    remaining = [
        np.array(stock.get(client, examples), dtype=np.int64)
        for client, examples in enumerate(partitions)
    ]
    return [
        np.concatenate([examples, np.array(moved.get(client, []), dtype=np.int64)])
        for client, examples in enumerate(remaining)
    ]


def _counts_with_margins(mixes: NDArray[np.float64], sizes: Indices, pools: Indices) -> Indices:
    """Turn mixes into whole counts; the rows add up to ``sizes`` and the columns to ``pools``.

    Rows and columns are scaled in turn, which keeps the proportions of the mixes as far as the
    margins allow. The counts are then rounded down, and the examples that are left are dealt
    client by client.
    """
    # A strong skew draws shares of 0 by underflow, and no factor can scale a 0 up.
    wanted: NDArray[np.float64] = np.maximum(mixes, 1e-12) * sizes[:, None].astype(np.float64)
    for _ in range(_BALANCING_STEPS):
        wanted *= _ratio(sizes, wanted.sum(axis=1))[:, None]
        wanted *= _ratio(pools, wanted.sum(axis=0))[None, :]
    wanted *= np.minimum(_ratio(sizes, wanted.sum(axis=1)), 1.0)[:, None]
    # A count that is just below a whole number by rounding must not lose an example.
    counts = np.floor(wanted + 1e-6).astype(np.int64)
    _deal_leftovers(counts, wanted, sizes, pools)
    return counts


def _deal_leftovers(
    counts: Indices, wanted: NDArray[np.float64], sizes: Indices, pools: Indices
) -> None:
    """Fill the clients up, in place: the first time with at most one example of each label.

    A client takes the labels in the order of their remainders, the largest first.
    """
    left = pools - counts.sum(axis=0)
    preferences = np.argsort(counts - wanted, axis=1, kind="stable")
    for most in (1, int(pools.max())):
        for client in np.flatnonzero(counts.sum(axis=1) < sizes):
            missing = int(sizes[client] - counts[client].sum())
            for label in preferences[client]:
                number = min(missing, int(left[label]), most)
                counts[client, label] += number
                left[label] -= number
                missing -= number
    assert not left.any()


def _ratio(target: Indices, actual: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(target, actual, out=np.zeros_like(actual), where=actual > 1e-100)
