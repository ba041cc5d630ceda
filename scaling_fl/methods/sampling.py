"""Who takes part in a round: a function of (randomness, round, client), never of the workers."""

from collections.abc import Callable, Sequence

import numpy as np

from scaling_fl.core.seeding import Randomness

SampleCohort = Callable[[int, str], list[int]]
"""(round, from 1; the digest of all rounds before) -> its clients, ascending."""
SampleGroups = Callable[[int, int, int, str], list[int]]
"""(its number of groups, round, client, digest) -> the groups of a client, ascending."""


def fixed_cohorts(num_clients: int, size: int, randomness: Randomness) -> SampleCohort:
    """Draw ``size`` different clients a round, uniformly."""

    def sample(round_number: int, history: str = "") -> list[int]:
        if size >= num_clients:
            return list(range(num_clients))
        rng = randomness("cohort", round_number, history=history)
        return sorted(int(client) for client in rng.choice(num_clients, size=size, replace=False))

    return sample


def poisson_cohorts(num_clients: int, size: int, randomness: Randomness) -> SampleCohort:
    """Draw each client independently, with probability size / num_clients; nobody may be drawn."""
    rate = size / num_clients

    def sample(round_number: int, history: str = "") -> list[int]:
        rng = randomness("cohort", round_number, history=history)
        return [int(client) for client in np.flatnonzero(rng.random(num_clients) < rate)]

    return sample


def listed_cohorts(cohorts: Sequence[Sequence[int]]) -> SampleCohort:
    """Take the lists one after the other from round 1; after the last list, the first again."""

    def sample(round_number: int, history: str = "") -> list[int]:
        return sorted(cohorts[(round_number - 1) % len(cohorts)])

    return sample


def fixed_groups(size: int, most: int, randomness: Randomness) -> SampleGroups:
    """Draw ``size`` different groups of a client, uniformly; every client has ``most`` groups."""

    def sample(num_groups: int, round_number: int, client: int, history: str = "") -> list[int]:
        rng = randomness("groups", round_number, client, history=history)
        return sorted(int(group) for group in rng.choice(num_groups, size=size, replace=False))

    return sample


def poisson_groups(size: int, most: int, randomness: Randomness) -> SampleGroups:
    """Draw each group independently, with probability size / most; none may be drawn.

    The probability does not depend on how many groups a client has, so that one group more or less
    changes nothing for the others.
    """

    def sample(num_groups: int, round_number: int, client: int, history: str = "") -> list[int]:
        rng = randomness("groups", round_number, client, history=history)
        return [int(group) for group in np.flatnonzero(rng.random(num_groups) < size / most)]

    return sample


COHORT_SAMPLINGS: dict[str, Callable[..., SampleCohort]] = {
    "fixed": fixed_cohorts,
    "poisson": poisson_cohorts,
}
GROUP_SAMPLINGS: dict[str, Callable[..., SampleGroups]] = {
    "fixed": fixed_groups,
    "poisson": poisson_groups,
}
