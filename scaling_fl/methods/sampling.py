"""Who takes part in a round: a function of (randomness, round, client), never of the workers."""

from collections.abc import Callable, Sequence

import numpy as np

from scaling_fl.core.seeding import Randomness

SampleCohort = Callable[[int, str], list[int]]
"""(round, from 1; the digest of all rounds before) -> its clients, ascending."""
SampleGroups = Callable[[int, int, int, str], list[int]]
"""(number of groups, round, client, digest) -> the groups of that client, ascending."""


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


def fixed_groups(size: int, randomness: Randomness) -> SampleGroups:
    """Draw ``size`` different groups of a client, uniformly."""

    def sample(num_groups: int, round_number: int, client: int, history: str = "") -> list[int]:
        rng = randomness("groups", round_number, client, history=history)
        return sorted(int(group) for group in rng.choice(num_groups, size=size, replace=False))

    return sample


def poisson_groups(size: int, randomness: Randomness) -> SampleGroups:
    """Draw each group independently, with probability size / num_groups; none may be drawn."""

    def sample(num_groups: int, round_number: int, client: int, history: str = "") -> list[int]:
        rng = randomness("groups", round_number, client, history=history)
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
