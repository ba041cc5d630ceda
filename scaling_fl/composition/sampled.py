"""Configuration -> who takes part in a round, as far as privacy is concerned."""

from collections import Counter

from scaling_fl.config import Config
from scaling_fl.methods.privacy.neighbours import Everyone, FixedSize, Nested, Poisson, Sampling


def bytes_tell_nobody(config: Config, num_clients: int) -> bool:
    """Say whether the bytes of a round are the same whoever is drawn.

    The epsilon of groups is computed as if all knew which clients took part.
    """
    if config.privacy.unit == "group" or isinstance(sampling_of(config, num_clients), Everyone):
        return True
    return config.sampling == "fixed" and len(config.tiers) <= 1


def rounds_of_busiest(config: Config, num_rounds: int) -> int:
    """Count the rounds that a client costs epsilon in, of ``num_rounds``: the most of any client.

    A client that is not drawn in secret costs nothing in a round that it takes no part in.
    """
    lists = config.listed_cohorts
    if not lists:
        return num_rounds
    turns, rest = divmod(num_rounds, len(lists))
    counts = Counter[int]()
    for index, cohort in enumerate(lists):
        counts.update(dict.fromkeys(cohort, turns + (index < rest)))
    return max(counts.values())


def is_amplified(sampling: Sampling) -> bool:
    """Say whether epsilon is smaller because nobody knows who was drawn."""
    if isinstance(sampling, Nested):
        return sampling.client_rate < 1 or is_amplified(sampling.groups)
    return not isinstance(sampling, Everyone)


def sampling_of(config: Config, num_clients: int) -> Sampling:
    """Return the sampling that the run really uses; epsilon is computed for it."""
    size = config.cohort_size(num_clients)
    clients: Everyone | Poisson | FixedSize
    if config.listed_cohorts or size == num_clients:
        clients = Everyone()  # a known cohort lowers no epsilon
    elif config.sampling == "poisson":
        clients = Poisson(size / num_clients)
    else:
        clients = FixedSize(size, num_clients)
    if config.privacy.unit == "client":
        return clients
    num_drawn, num_groups = config.privacy.groups_per_round, config.privacy.groups_per_client
    groups: Everyone | Poisson | FixedSize = FixedSize(num_drawn, num_groups)
    if num_drawn == num_groups:
        groups = Everyone()
    elif config.sampling == "poisson":
        groups = Poisson(num_drawn / num_groups)
    rate = 1.0 if isinstance(clients, Everyone) else size / num_clients
    return Nested(rate, groups)


def what_is_protected(config: Config, sampling: Sampling) -> str:
    who = "one client" if config.privacy.unit == "client" else "one group of a client"
    if sampling.neighbours == "replace_one":
        return f"all data of {who} that takes part"
    return f"the participation of {who}"
