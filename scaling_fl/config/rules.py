"""The rules between settings: what belongs together, and what excludes each other."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from scaling_fl.config.no_effect import NO_EFFECT, value_at
from scaling_fl.config.problems import Problem
from scaling_fl.config.schema import Config

FILE_TASKS = ("agnews", "yelp", "spooky_author")
TIERED = ("tiers", "download", "upload", "num_local_steps")
"""Settings, or their sections, that a tier may have its own of."""


def _settings_without_effect(config: Config, bad: set[str]) -> Iterator[Problem]:
    for path, other, works, rule, remedy in NO_EFFECT:
        if _touches(bad, (path, other)) or works(config):
            continue
        if "tiers" in bad and other.split(".")[0] in TIERED:
            continue  # a tier that is not known may be what the setting works for
        value = value_at(config, path)
        if value != value_at(Config(), path):
            yield Problem(path, rule, f"{value!r} with {other}={_given(config, other)}", remedy)


def _given(config: Config, path: str) -> Any:
    """Return a setting as it was given: of tiers, only what differs between them."""
    if path == "tiers":
        return [tier.model_dump(exclude_defaults=True) for tier in config.tiers]
    return value_at(config, path)


def _data_paths(config: Config, bad: set[str]) -> Iterator[Problem]:
    paths = ("train_path", "test_path")
    if _touches(bad, ("task_name", *paths)):
        return
    missing = [path for path in paths if value_at(config, path) is None]
    for path in missing:
        if config.task_name in FILE_TASKS:
            yield Problem(
                path, f"must be given for {config.task_name}", "None", f"set {path} to its file"
            )
        elif len(missing) == 1:
            yield Problem(
                path,
                "must be given when the other one is",
                "None",
                "give train_path and test_path, or neither",
            )
    for path in paths:
        if path not in missing:
            yield from _missing_file(config, path)


def _missing_file(config: Config, path: str) -> Iterator[Problem]:
    location: str = value_at(config, path)
    downloads = config.task_name.startswith("20newsgroups") and location == "sklearn"
    if "://" in location or downloads:
        return
    if config.task_name in FILE_TASKS:
        if not os.path.isfile(location):
            yield Problem(
                path,
                "must name an existing file",
                repr(location),
                f"correct the path (looked in {os.getcwd()})",
            )
    elif not os.path.exists(location):
        yield Problem(
            path,
            "must name an existing file or folder",
            repr(location),
            f"correct the path (looked in {os.getcwd()})",
        )


def _broken_privacy(config: Config, bad: set[str]) -> Iterator[Problem]:
    """Refuse what the guarantee does not survive."""
    privacy = config.privacy
    if privacy.clip is None or _touches(bad, ("privacy.clip",)):
        return
    with_clip = f"with privacy.clip={privacy.clip}"
    if config.weighting != "uniform" and not _touches(bad, ("weighting",)):
        yield Problem(
            "weighting",
            "must be uniform with privacy.clip, which bounds a client's influence only when all"
            " count alike",
            f"{config.weighting!r} {with_clip}",
            "set weighting=uniform or drop privacy.clip",
        )
    if config.merge.divide_by != "all":
        yield Problem(
            "merge.divide_by",
            "must be all with privacy.clip, because who sent a coordinate depends on the data",
            f"{config.merge.divide_by!r} {with_clip}",
            "drop merge.divide_by or privacy.clip",
        )
    if config.upload.error_feedback and privacy.is_noisy:
        yield Problem(
            "upload.error_feedback",
            "must be False with noise, whose accounting holds for clients that keep nothing between"
            " the rounds they are sampled for",
            f"True {with_clip}",
            "drop upload.error_feedback or the noise",
        )
    if len({len(cohort) for cohort in config.listed_cohorts}) > 1:
        yield Problem(
            "cohorts",
            "must have the same number of clients in every round with privacy.clip, whose divisor"
            " is fixed",
            f"{[list(cohort) for cohort in config.cohorts or ()]} {with_clip}",
            "list as many clients for each round",
        )
    if config.min_clients > 1 and privacy.is_noisy:
        yield Problem(
            "min_clients",
            "must be 1 with noise, because a run that ends for lack of clients tells whose data"
            " made them fail",
            f"{config.min_clients} {with_clip}",
            "drop min_clients or the noise",
        )
    if privacy.unit == "group":
        yield from _broken_groups(config)


def _erased_state(config: Config) -> Iterator[Problem]:
    sparse = any(tier.download.is_sparse for tier in config.by_tier())
    if sparse and config.upload.values == "state":
        yield Problem(
            "upload.values",
            "must be update when clients receive a part of the state, or the rest of it would be"
            " replaced by what they trained from nothing",
            f"'state' with download.density={config.download.density}",
            "drop upload.values or download.density",
        )


def _broken_groups(config: Config) -> Iterator[Problem]:
    privacy = config.privacy
    lossy = [tier.upload for tier in config.by_tier() if tier.upload.is_lossy]
    if lossy:
        yield Problem(
            "upload" if config.upload.is_lossy else "tiers[].upload",
            "must be exact with privacy.unit=group, because a client's sum of bounded updates that"
            " is changed after it is no longer bounded group by group",
            str(lossy[0].model_dump(exclude_defaults=True)),
            "drop what is set of it, or protect clients (privacy.unit=client)",
        )
    if config.client_freeze or any(tier.rank is not None for tier in config.tiers):
        yield Problem(
            "client_freeze" if config.client_freeze else "tiers",
            "must be left alone with privacy.unit=group, because groups are bounded before"
            " coordinates are left out",
            "True" if config.client_freeze else "a rank",
            "drop it or protect clients (privacy.unit=client)",
        )
    if privacy.groups_per_round > privacy.groups_per_client:
        yield Problem(
            "privacy.groups_per_round",
            "must not exceed privacy.groups_per_client",
            f"{privacy.groups_per_round} of {privacy.groups_per_client}",
            "lower it or raise privacy.groups_per_client",
        )


_WHO = {"share": None, "clients": None}


def _tier_problems(config: Config, bad: set[str]) -> Iterator[Problem]:
    if not config.tiers or _touches(bad, ("tiers", "adapter.rank", "adapter.kind")):
        return
    if len(config.tiers) == 1:
        yield Problem("tiers", "must be two or more", "1", "set the same for all clients instead")
    ranks = [tier.rank for tier in config.tiers if tier.rank is not None]
    if ranks and config.adapter.kind not in ("lora", "dora"):
        yield Problem(
            "tiers[].rank",
            "must be left alone unless adapter.kind is lora or dora",
            f"{ranks} with adapter.kind={config.adapter.kind}",
            "set adapter.kind=lora or dora, or drop the ranks",
        )
    if ranks and max(tier.adapter.rank for tier in config.by_tier()) != config.adapter.rank:
        yield Problem(
            "tiers[].rank",
            "must be adapter.rank in one tier, and more in none",
            f"{ranks} with adapter.rank={config.adapter.rank}",
            "set adapter.rank to the largest of them",
        )
    if len({tier.model_copy(update=_WHO) for tier in config.tiers}) < len(config.tiers):
        yield Problem(
            "tiers",
            "must differ from each other in more than who is of them",
            f"{len(config.tiers)} of which some are equal",
            "drop one or change it",
        )
    for name in ("share", "clients"):
        given = [tier for tier in config.tiers if getattr(tier, name) is not None]
        if given and len(given) < len(config.tiers):
            yield Problem(
                f"tiers[].{name}",
                "must be given for every tier or for none",
                f"it for {len(given)} of {len(config.tiers)}",
                "give it for all",
            )
    shares = [tier.share for tier in config.tiers if tier.share is not None]
    if len(shares) == len(config.tiers) and abs(sum(shares) - 1.0) > 1e-6:
        yield Problem("tiers[].share", "must add up to 1", f"{sum(shares):g}", "correct the shares")
    if shares and any(tier.clients for tier in config.tiers):
        yield Problem(
            "tiers[].share",
            "must be left alone when tiers list their clients",
            f"{shares}",
            "give one of the two",
        )


def _listed_problems(config: Config, num_clients: int) -> Iterator[Problem]:
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


def cohort_problems(config: Config, num_clients: int) -> list[Problem]:
    """Check the settings that count clients; for several nodes, once their sites are known."""
    if listed := list(_listed_problems(config, num_clients)):
        return listed
    cohort = config.cohort_size(num_clients)
    among = f"with {num_clients} client{'s'[: num_clients > 1]}"
    if cohort > num_clients:
        return [
            Problem(
                "clients_per_round",
                "must not exceed the number of clients",
                f"{cohort} {among}",
                "lower it or raise num_clients",
            )
        ]
    groups_are_drawn = config.privacy.groups_per_round < config.privacy.groups_per_client
    everyone = cohort == num_clients and not config.listed_cohorts
    if config.sampling == "poisson" and everyone and not groups_are_drawn:
        return [
            Problem(
                "sampling",
                "must be fixed when all clients take part in every round",
                f"'poisson' {among} of which {cohort} are expected",
                "lower clients_per_round or drop sampling",
            )
        ]
    if config.min_clients > cohort:
        return [
            Problem(
                "min_clients",
                "must not exceed the clients sampled in a round",
                f"{config.min_clients} {among} of which {cohort} are sampled",
                "lower it or raise clients_per_round",
            )
        ]
    return []


def cross_problems(config: Config, bad: set[str], *, num_nodes: int) -> Iterator[Problem]:
    """Yield what is wrong between settings, leaving aside the paths that are already bad."""
    yield from _settings_without_effect(config, bad)
    yield from _data_paths(config, bad)
    yield from _broken_privacy(config, bad)
    yield from _tier_problems(config, bad)
    if not _touches(bad, ("download", "upload.values")):
        yield from _erased_state(config)
    counts = ("site_ids", "num_clients", "clients_per_round", "min_clients", "clients", "cohorts")
    if not _touches(bad, counts) and (num_nodes == 1 or config.num_clients is not None):
        yield from cohort_problems(config, config.num_clients or len(config.site_ids))


def _touches(bad: set[str], paths: Sequence[str]) -> bool:
    return any(path in bad or path.split(".")[0] in bad for path in paths)
