"""The rules between settings: what belongs together, and what has no effect."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any, NamedTuple

from scaling_fl.config.problems import Problem
from scaling_fl.config.schema import Config

FILE_TASKS = ("agnews", "yelp", "spooky_author")


class NoEffect(NamedTuple):
    """A setting that works only under another one and must otherwise keep its default."""

    path: str
    other: str
    works: Callable[[Config], bool]
    rule: str
    remedy: str


def _decays(direction: str) -> Callable[[Config], bool]:
    return lambda config: bool(value_at(config, f"{direction}.density_decay") != 1.0)


NO_EFFECT = (
    NoEffect(
        "momentum",
        "optimiser",
        lambda c: c.optimiser == "sgd",
        "must be 0 unless optimiser is sgd",
        "set optimiser=sgd or leave momentum at 0",
    ),
    NoEffect(
        "momentum",
        "num_local_steps",
        lambda c: c.num_local_steps != 1 or c.optimiser != "sgd",
        "must be 0 when a client takes a single step, which it cannot change",
        "raise num_local_steps or leave momentum at 0",
    ),
    NoEffect(
        "prox_mu",
        "num_local_steps",
        lambda c: c.num_local_steps != 1,
        "must be 0 when a client takes a single step, which it cannot change",
        "raise num_local_steps or leave prox_mu at 0",
    ),
    NoEffect(
        "num_local_epochs",
        "num_local_steps",
        lambda c: c.num_local_steps is None,
        "must be left alone when num_local_steps is set",
        "give one of the two",
    ),
    NoEffect(
        "schedule.final_learning_rate",
        "schedule.kind",
        lambda c: c.schedule.kind != "constant",
        "must be 0 when the learning rate is constant",
        "set schedule.kind=linear or cosine, or leave schedule.final_learning_rate at 0",
    ),
    NoEffect(
        "partition.alpha",
        "partition.kind",
        lambda c: c.partition_kind.startswith("dirichlet"),
        "must be left alone unless partition.kind is a Dirichlet split",
        "set partition.kind=dirichlet_by_class or dirichlet_by_client,"
        " or leave partition.alpha at 1.0",
    ),
    NoEffect(
        "partition.min_examples",
        "partition.kind",
        lambda c: c.partition_kind == "dirichlet_by_class",
        "must be left alone unless partition.kind is dirichlet_by_class",
        "set partition.kind=dirichlet_by_class or leave partition.min_examples at 1",
    ),
    NoEffect(
        "iid_split",
        "partition.kind",
        lambda c: c.partition.kind in (None, "label_sorted"),
        "must be True when partition.kind names another split",
        "drop iid_split or partition.kind",
    ),
    NoEffect(
        "data.text",
        "task_name",
        lambda c: c.task_name == "agnews",
        "must be None unless task_name is agnews",
        "set task_name=agnews or drop data.text",
    ),
    *(
        NoEffect(
            f"adapter.{name}",
            "adapter.kind",
            lambda c: c.adapter.kind in ("lora", "dora"),
            "must be left alone unless adapter.kind is lora or dora",
            f"set adapter.kind=lora or dora, or drop adapter.{name}",
        )
        for name in ("rank", "alpha", "dropout", "targets", "freeze_a", "rslora")
    ),
    NoEffect(
        "adapter.modules_to_save",
        "adapter.kind",
        lambda c: c.adapter.kind != "none",
        "must be empty when adapter.kind is none, which trains every module",
        "set adapter.kind=lora, dora or head, or drop adapter.modules_to_save",
    ),
    *(
        NoEffect(
            f"{direction}.decay_every",
            f"{direction}.density_decay",
            _decays(direction),
            "must be left alone when the density does not decay",
            f"set {direction}.density_decay or drop {direction}.decay_every",
        )
        for direction in ("download", "upload")
    ),
    NoEffect(
        "download.evaluate",
        "download.codec",
        lambda c: c.download.is_lossy,
        "must be False when the clients receive the very state that is evaluated",
        "set download.density or download.codec, or drop download.evaluate",
    ),
    NoEffect(
        "upload.values",
        "upload.codec",
        lambda c: c.upload.codec != "none",
        "must be update when uploads are exact, where both come to the same",
        "set upload.codec or drop upload.values",
    ),
    NoEffect(
        "upload.values",
        "upload.density",
        lambda c: c.upload.density == c.upload.density_decay == 1.0,
        "must be update when only the largest coordinates are sent",
        "leave upload.density and upload.density_decay at 1.0, or drop upload.values",
    ),
    *(
        NoEffect(
            f"privacy.{name}",
            "privacy.clip",
            lambda c: c.privacy.clip is not None,
            "must be left alone without privacy.clip, which bounds what noise must hide",
            f"set privacy.clip or drop privacy.{name}",
        )
        for name in ("noise_multiplier", "target_epsilon")
    ),
    NoEffect(
        "privacy.noise_multiplier",
        "privacy.target_epsilon",
        lambda c: c.privacy.target_epsilon is None,
        "must be 0 when privacy.target_epsilon chooses the noise",
        "give one of the two",
    ),
    *(
        NoEffect(
            f"privacy.{name}",
            "privacy.noise_multiplier",
            lambda c: c.privacy.is_noisy,
            "must be left alone without noise, whose epsilon is infinite",
            "set privacy.noise_multiplier or privacy.target_epsilon, or leave it out",
        )
        for name in ("max_epsilon", "delta", "accountant")
    ),
    NoEffect(
        "num_threads",
        "device",
        lambda c: c.device != "cuda",
        "must be None when device is cuda, whose workers it does not touch",
        "set device=cpu or drop num_threads",
    ),
)


def value_at(settings: Any, path: str) -> Any:
    """Return the setting at a dotted path."""
    return reduce(getattr, path.split("."), settings)


def _settings_without_effect(config: Config, bad: set[str]) -> Iterator[Problem]:
    for path, other, works, rule, remedy in NO_EFFECT:
        if _touches(bad, (path, other)) or works(config):
            continue
        value = value_at(config, path)
        if value != value_at(Config(), path):
            yield Problem(path, rule, f"{value!r} with {other}={value_at(config, other)}", remedy)


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
    if config.privacy.clip is None or _touches(bad, ("weighting", "privacy.clip")):
        return
    if config.weighting != "uniform":
        yield Problem(
            "weighting",
            "must be uniform with privacy.clip, which bounds a client's influence only when all"
            " count alike",
            f"{config.weighting!r} with privacy.clip={config.privacy.clip}",
            "set weighting=uniform or drop privacy.clip",
        )


def cohort_problems(config: Config, num_clients: int) -> list[Problem]:
    """Check the settings that count clients; for several nodes, once their sites are known."""
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
    counts = ("site_ids", "num_clients", "clients_per_round", "min_clients")
    if not _touches(bad, counts) and (num_nodes == 1 or config.num_clients is not None):
        yield from cohort_problems(config, config.num_clients or len(config.site_ids))


def _touches(bad: set[str], paths: Sequence[str]) -> bool:
    return any(path in bad or path.split(".")[0] in bad for path in paths)
