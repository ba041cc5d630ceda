"""Who owns which training example: seeded partitions, each disjoint and complete."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from scaling_fl.core.seeding import numpy_generator

Indices = NDArray[np.int64]
Partitioner = Callable[[Indices, int, np.random.Generator, float, int], list[Indices]]
"""(labels, num_clients, rng, alpha, min_examples) -> the examples of each client, unsorted."""

_BALANCING_STEPS = 100


def iid(
    labels: Indices, num_clients: int, rng: np.random.Generator, alpha: float, min_examples: int
) -> list[Indices]:
    """Deal the examples at random; sizes differ by at most one and nothing is discarded."""
    return np.array_split(rng.permutation(len(labels)), num_clients)


def label_sorted(
    labels: Indices, num_clients: int, rng: np.random.Generator, alpha: float, min_examples: int
) -> list[Indices]:
    """Sort by label and cut into near-equal chunks: clients with one or two labels each."""
    return np.array_split(np.argsort(labels, kind="stable"), num_clients)


def dirichlet_by_class(
    labels: Indices, num_clients: int, rng: np.random.Generator, alpha: float, min_examples: int
) -> list[Indices]:
    """Draw for every class how it is spread over the clients: sizes and labels are both skewed.

    Source: Yurochkin et al., arXiv 1905.12022, section 4; the minimum per client is ours.
    """
    owner = np.empty(len(labels), dtype=np.int64)
    for pool in _class_pools(labels, rng):
        shares = rng.dirichlet(np.full(num_clients, alpha))
        ends = np.rint(np.cumsum(shares)[:-1] * len(pool)).astype(np.int64)
        owner[pool] = np.searchsorted(ends, np.arange(len(pool)), side="right")
    parts = [np.flatnonzero(owner == client) for client in range(num_clients)]
    return _raise_to_minimum(parts, rng, min_examples)


def dirichlet_by_client(
    labels: Indices, num_clients: int, rng: np.random.Generator, alpha: float, min_examples: int
) -> list[Indices]:
    """Draw for every client its mix of classes: labels are skewed, sizes are near-equal.

    The draws are balanced so that every example finds one owner, which rounding each draw alone
    does not give.

    Source: Kuo et al., FLASC, arXiv 2406.05233 (their split loses the rows that rounding leaves).
    """
    pools = _class_pools(labels, rng)
    mixes = rng.dirichlet(np.full(len(pools), alpha), size=num_clients)  # (clients, classes)
    sizes = np.full(num_clients, len(labels) // num_clients, dtype=np.int64)
    sizes[: len(labels) % num_clients] += 1
    counts = _counts_with_margins(mixes, sizes, np.array([len(pool) for pool in pools]))
    ends = np.cumsum(counts, axis=0)
    cut = [np.split(pool, ends[:-1, label]) for label, pool in enumerate(pools)]
    return [np.concatenate([slices[client] for slices in cut]) for client in range(num_clients)]


PARTITIONERS: Mapping[str, Partitioner] = {
    "iid": iid,
    "label_sorted": label_sorted,
    "dirichlet_by_class": dirichlet_by_class,
    "dirichlet_by_client": dirichlet_by_client,
}


def partition(
    labels: Indices,
    *,
    kind: str,
    num_clients: int,
    seed: int,
    alpha: float = 1.0,
    min_examples: int = 1,
) -> list[Indices]:
    """Give every example to exactly one client; return each client's sorted example indices.

    The result depends on nothing but the arguments, so every worker computes the same one.

    Raises:
        ValueError: when the kind is unknown or the examples do not suffice for the clients.
    """
    if kind not in PARTITIONERS:
        known = ", ".join(PARTITIONERS)
        raise ValueError(
            f"partition.kind must be one of {known}, got {kind!r}; choose one of them."
        )
    _check_feasible(len(labels), num_clients, alpha, min_examples)
    rng = numpy_generator(seed, "partition")
    parts = PARTITIONERS[kind](labels, num_clients, rng, alpha, min_examples)
    return [np.sort(part).astype(np.int64, copy=False) for part in parts]


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
    """List the examples of each label that occurs, in random order within the label."""
    return [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]


def _raise_to_minimum(
    parts: list[Indices], rng: np.random.Generator, min_examples: int
) -> list[Indices]:
    """Move random examples, one by one, from whoever is largest to clients below the minimum."""
    sizes = np.array([len(part) for part in parts])
    needy = np.flatnonzero(sizes < min_examples)
    moved: dict[int, list[int]] = {int(client): [] for client in needy}
    stock: dict[int, list[int]] = {}
    for client in moved:
        while sizes[client] < min_examples:
            donor = int(sizes.argmax())
            if donor not in stock:
                stock[donor] = rng.permutation(parts[donor]).tolist()
            moved[client].append(stock[donor].pop())
            sizes[donor] -= 1
            sizes[client] += 1
    kept = [np.array(stock.get(k, part), dtype=np.int64) for k, part in enumerate(parts)]
    return [
        np.concatenate([part, np.array(moved.get(client, []), dtype=np.int64)])
        for client, part in enumerate(kept)
    ]


def _counts_with_margins(mixes: NDArray[np.float64], sizes: Indices, pools: Indices) -> Indices:
    """Turn mixes into whole counts whose rows add up to ``sizes`` and columns to ``pools``.

    Alternate scaling of rows and columns keeps the mixes' proportions as far as the margins let
    it; what flooring leaves is then dealt out client by client.
    """
    # A strong skew draws shares that underflow, and such a share could never be scaled up.
    wanted: NDArray[np.float64] = np.maximum(mixes, 1e-12) * sizes[:, None].astype(np.float64)
    for _ in range(_BALANCING_STEPS):
        wanted *= _ratio(sizes, wanted.sum(axis=1))[:, None]
        wanted *= _ratio(pools, wanted.sum(axis=0))[None, :]
    wanted *= np.minimum(_ratio(sizes, wanted.sum(axis=1)), 1.0)[:, None]
    # A count that is whole but for rounding noise must not lose one.
    counts = np.floor(wanted + 1e-6).astype(np.int64)
    _deal_leftovers(counts, wanted, sizes, pools)
    return counts


def _deal_leftovers(
    counts: Indices, wanted: NDArray[np.float64], sizes: Indices, pools: Indices
) -> None:
    """Fill every client up in place: first one of a label each, largest remainder first."""
    left = pools - counts.sum(axis=0)
    preferences = np.argsort(counts - wanted, axis=1, kind="stable")
    for most in (1, int(pools.max())):
        for client in np.flatnonzero(counts.sum(axis=1) < sizes):
            missing = int(sizes[client] - counts[client].sum())
            for label in preferences[client]:
                taken = min(missing, int(left[label]), most)
                counts[client, label] += taken
                left[label] -= taken
                missing -= taken
    assert not left.any()


def _ratio(target: Indices, actual: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(target, actual, out=np.zeros_like(actual), where=actual > 1e-100)
