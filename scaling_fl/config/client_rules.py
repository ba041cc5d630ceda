"""The rules that count clients, which on several nodes are known once all sites are known."""

from collections.abc import Iterator

from scaling_fl.config.problems import Problem
from scaling_fl.config.schema import Config


def cohort_problems(config: Config, num_clients: int) -> list[Problem]:
    """Check the settings that count clients; for several nodes, once their sites are known."""
    if listed := list(_listed_clients(config, num_clients)):
        return listed
    sampled = list(_sampled_clients(config, num_clients))[:1]  # the others follow from the first
    return sampled or list(_unknown_bytes(config, num_clients))


def _listed_clients(config: Config, num_clients: int) -> Iterator[Problem]:
    """Check the clients that are named, once their number is known."""
    for path in ("clients", "cohorts"):
        for cohort in (config.cohorts or ()) if path == "cohorts" else (config.clients or (),):
            if len(set(cohort)) < len(cohort) or max(cohort, default=0) >= num_clients:
                yield Problem(
                    path,
                    f"must name different clients from 0 to {num_clients - 1}",
                    str(list(cohort)),
                    "correct the list or raise num_clients",
                )
    lists = [tier.clients for tier in config.tiers if tier.clients is not None]
    if lists and sorted(c for clients in lists for c in clients) != list(range(num_clients)):
        yield Problem(
            "tiers[].clients",
            f"must name each client from 0 to {num_clients - 1} once",
            str([list(clients) for clients in lists]),
            "correct the lists or num_clients",
        )


def _sampled_clients(config: Config, num_clients: int) -> Iterator[Problem]:
    cohort = config.cohort_size(num_clients)
    among = f"with {num_clients} client{'s'[: num_clients > 1]}"
    if cohort > num_clients:
        yield Problem(
            "clients_per_round",
            "must not exceed the number of clients",
            f"{cohort} {among}",
            "lower clients_per_round or raise num_clients",
        )
    groups_are_drawn = config.privacy.groups_per_round < config.privacy.groups_per_client
    everyone = cohort == num_clients and not config.listed_cohorts
    if config.sampling == "poisson" and everyone and not groups_are_drawn:
        yield Problem(
            "sampling",
            "must be fixed when all clients take part in every round",
            f"'poisson' {among}, of which {cohort} are expected in a round",
            "lower clients_per_round or drop sampling",
        )
    if config.scaffold and len(config.participants(num_clients)) == 1:
        yield Problem(
            "scaffold",
            "must be False when a single client takes part, whose gradients are those of all",
            f"True {among}" + ", of which 1 is listed" * bool(config.listed_cohorts),
            "let more clients take part or drop scaffold",
        )
    if config.min_clients > cohort:
        yield Problem(
            "min_clients",
            "must not exceed the clients sampled in a round",
            f"{config.min_clients} {among}, of which {cohort} are sampled",
            "lower min_clients or raise clients_per_round",
        )


def _unknown_bytes(config: Config, num_clients: int) -> Iterator[Problem]:
    """Check that a budget of bytes can be kept: who is drawn in secret is known to nobody before.

    Whoever is drawn, so many clients of one tier cost the same.
    """
    is_drawn = config.cohort_size(num_clients) < num_clients and not config.listed_cohorts
    varies = config.sampling == "poisson" or len(config.tiers) > 1
    if config.stop_when.bytes and config.privacy.is_noisy and is_drawn and varies:
        yield Problem(
            "stop_when.bytes",
            "must be left alone when secret draws decide the bytes of a round, which nobody knows"
            " before",
            f"{config.stop_when.bytes} with noise, sampling={config.sampling} and "
            f"{max(1, len(config.tiers))} tiers",
            "drop stop_when.bytes, the noise, or sampling=poisson and tiers",
        )
