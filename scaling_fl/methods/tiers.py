"""The tier of each client: a function of the settings, never of the round."""

from collections.abc import Sequence

from scaling_fl.core.seeding import numpy_generator


def by_modulo(num_clients: int, num_tiers: int) -> list[int]:
    """Put client c into tier c % num_tiers, as in the code of arXiv 2406.05233."""
    return [client % num_tiers for client in range(num_clients)]


def by_share(num_clients: int, shares: Sequence[float], *, seed: int) -> list[int]:
    """Draw the tier of each client; tier i gets ``shares[i] * num_clients`` clients, rounded.

    The numbers are first rounded down. The clients that are then left go one each to the tiers
    with the largest remainders (of equal ones, the lower tier).
    """
    exact = [share * num_clients for share in shares]
    counts = [int(number) for number in exact]
    remainders = sorted(range(len(shares)), key=lambda tier: (counts[tier] - exact[tier], tier))
    for tier in remainders[: num_clients - sum(counts)]:
        counts[tier] += 1
    tiers = [tier for tier, count in enumerate(counts) for _ in range(count)]
    order = numpy_generator(seed, "tiers").permutation(num_clients)
    return [tiers[position] for position in order]


def by_list(lists: Sequence[Sequence[int]]) -> list[int]:
    """Put the clients of ``lists[i]`` into tier i; each client is in exactly one list."""
    tier_of = {client: tier for tier, clients in enumerate(lists) for client in clients}
    return [tier_of[client] for client in range(len(tier_of))]
