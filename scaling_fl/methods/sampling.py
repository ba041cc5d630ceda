"""Who takes part in a round: a function of (seed, round, client), never of the workers."""

from collections.abc import Sequence

import numpy as np

from scaling_fl.core.seeding import numpy_generator


def sample_cohort(*, seed: int, round_number: int, num_clients: int, size: int) -> list[int]:
    """Draw ``size`` different clients uniformly; the list is sorted."""
    if size >= num_clients:
        return list(range(num_clients))
    rng = numpy_generator(seed, "cohort", round_number)
    return sorted(int(client) for client in rng.choice(num_clients, size=size, replace=False))


def poisson_cohort(*, seed: int, round_number: int, num_clients: int, rate: float) -> list[int]:
    """Draw each client by itself with probability ``rate``; the list is sorted, may be empty."""
    rng = numpy_generator(seed, "cohort", round_number)
    return [int(client) for client in np.flatnonzero(rng.random(num_clients) < rate)]


def listed_cohort(cohorts: Sequence[Sequence[int]], round_number: int) -> list[int]:
    """Take the lists in turn, from round 1; after the last, the first comes again."""
    return sorted(cohorts[(round_number - 1) % len(cohorts)])


def sample_groups(
    num_groups: int, size: int, *, seed: int, round_number: int, client: int
) -> list[int]:
    """Draw ``size`` different groups of a client uniformly; the list is sorted."""
    rng = numpy_generator(seed, "groups", round_number, client)
    return sorted(int(group) for group in rng.choice(num_groups, size=size, replace=False))


def poisson_groups(
    num_groups: int, size: int, *, seed: int, round_number: int, client: int
) -> list[int]:
    """Draw each group of a client by itself so that ``size`` are expected; may be empty."""
    rng = numpy_generator(seed, "groups", round_number, client)
    return [int(group) for group in np.flatnonzero(rng.random(num_groups) < size / num_groups)]
