"""The rules that count clients, which on several nodes are known once all sites are known."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from scaling_fl.config.problems import Problem
from scaling_fl.config.schema import Config


def cohort_problems(config: Config, num_clients: int) -> list[Problem]:
    """Check the settings that count clients; for several nodes, once their sites are known."""
    if listed := list(_listed_clients(config, num_clients)):
        return listed
    sampled = list(_sampled_clients(config, num_clients))[:1]  # the others follow from the first
    return sampled or [
        *_unknown_bytes(config, num_clients),
        *_merged_clients(config, num_clients),
    ]


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


class _OfRound(NamedTuple):
    """What a setting of a merge must be, given the fewest and the most clients of a round."""

    name: str
    holds: Callable[[Any, int, int], bool]
    rule: str
    remedy: str


_OF_ROUND = (
    _OfRound(
        "trim",
        lambda share, fewest, most: share * most * (1 + 1e-12) >= 1,  # as the merge rounds it
        "must be a client or more on either side, because the merge is a plain mean otherwise",
        "raise merge.trim or clients_per_round",
    ),
    _OfRound(
        "byzantine",
        lambda count, fewest, most: count == 0 or 2 * count + 2 < fewest,
        "must be 0 or below (clients of a round - 2) / 2, beyond which Krum withstands nobody",
        "lower merge.byzantine or raise clients_per_round",
    ),
    _OfRound(
        "selected",
        lambda count, fewest, most: count < most,
        "must be below the clients of a round, because all of them are averaged otherwise",
        "lower merge.selected or raise clients_per_round",
    ),
    _OfRound(
        "agreeing",
        lambda count, fewest, most: count <= most,
        "must not exceed the clients of a round",
        "lower merge.agreeing or raise clients_per_round",
    ),
)


def _merged_clients(config: Config, num_clients: int) -> Iterator[Problem]:
    """Check the settings of merges that count clients: of a sampled round, as are expected."""
    sizes = [len(cohort) for cohort in config.listed_cohorts] or [config.cohort_size(num_clients)]
    fewest, most = min(sizes), max(sizes)
    for name, holds, rule, remedy in _OF_ROUND:
        value = config.merge.options.get(name)
        if value is not None and not holds(value, fewest, most):
            count = str(most) if fewest == most else f"{fewest} to {most}"
            got = f"{value} with {count} client{'s'[: most > 1]} in a round"
            yield Problem(f"merge.{name}", rule, got, remedy)
