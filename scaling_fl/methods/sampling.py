"""Who takes part in a round: a function of (seed, round, client), never of the workers."""

from collections.abc import Callable, Sequence

import numpy as np

from scaling_fl.core.seeding import numpy_generator

SampleCohort = Callable[[int], list[int]]
"""Round, from 1 -> its clients, ascending."""
SampleGroups = Callable[[int, int, int], list[int]]
"""(number of groups, round, client) -> the groups of that client in that round, ascending."""


def fixed_cohorts(num_clients: int, size: int, *, seed: int) -> SampleCohort:
    """Draw ``size`` different clients a round, uniformly."""

    def sample(round_number: int) -> list[int]:
        if size >= num_clients:
            return list(range(num_clients))
        rng = numpy_generator(seed, "cohort", round_number)
        return sorted(int(client) for client in rng.choice(num_clients, size=size, replace=False))

    return sample


def poisson_cohorts(num_clients: int, size: int, *, seed: int) -> SampleCohort:
    """Draw each client independently, with probability size / num_clients; nobody may be drawn."""
    rate = size / num_clients

    def sample(round_number: int) -> list[int]:
        rng = numpy_generator(seed, "cohort", round_number)
        return [int(client) for client in np.flatnonzero(rng.random(num_clients) < rate)]

    return sample


def listed_cohorts(cohorts: Sequence[Sequence[int]]) -> SampleCohort:
    """Take the lists one after the other from round 1; after the last list, the first again."""
    return lambda round_number: sorted(cohorts[(round_number - 1) % len(cohorts)])


def fixed_groups(size: int, *, seed: int) -> SampleGroups:
    """Draw ``size`` different groups of a client, uniformly."""

    def sample(num_groups: int, round_number: int, client: int) -> list[int]:
        rng = numpy_generator(seed, "groups", round_number, client)
        return sorted(int(group) for group in rng.choice(num_groups, size=size, replace=False))

    return sample


def poisson_groups(size: int, *, seed: int) -> SampleGroups:
    """Draw each group independently, with probability size / num_groups; none may be drawn."""

    def sample(num_groups: int, round_number: int, client: int) -> list[int]:
        rng = numpy_generator(seed, "groups", round_number, client)
        return [int(group) for group in np.flatnonzero(rng.random(num_groups) < size / num_groups)]

    return sample


COHORT_SAMPLINGS: dict[str, Callable[..., SampleCohort]] = {
    "fixed": fixed_cohorts,
    "poisson": poisson_cohorts,
}
GROUP_SAMPLINGS: dict[str, Callable[..., SampleGroups]] = {
    "fixed": fixed_groups,
    "poisson": poisson_groups,
}
