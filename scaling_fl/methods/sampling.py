"""Which clients take part in a round: a function of (seed, round), never of the workers."""

from scaling_fl.core.seeding import numpy_generator


def sample_cohort(*, seed: int, round_number: int, num_clients: int, size: int) -> list[int]:
    """Draw ``size`` different clients uniformly; the list is sorted."""
    if size >= num_clients:
        return list(range(num_clients))
    rng = numpy_generator(seed, "cohort", round_number)
    return sorted(int(client) for client in rng.choice(num_clients, size=size, replace=False))
