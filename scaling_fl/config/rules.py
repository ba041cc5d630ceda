"""The rules between settings: what belongs together, and what excludes each other."""

import os
from collections.abc import Iterator, Sequence

from scaling_fl.config.client_rules import cohort_problems
from scaling_fl.config.conditions import value_at
from scaling_fl.config.effects import EFFECTS
from scaling_fl.config.own import why_missing
from scaling_fl.config.privacy_rules import PRIVACY
from scaling_fl.config.problems import Problem, Rule
from scaling_fl.config.schema import Config
from scaling_fl.config.tier_rules import TIERS

FILE_TASKS = ("agnews", "yelp", "spooky_author")
TIERED = ("tiers", "download", "upload", "num_local_steps")
"""Settings, or their sections, that a tier may have its own of."""


def _keeps_what_was_not_received(config: Config) -> bool:
    sparse = any(tier.download.is_sparse for tier in config.by_tier())
    return not sparse or config.upload.values != "state"


RULES: tuple[Rule, ...] = (
    *EFFECTS,
    *PRIVACY,
    *TIERS,
    Rule(
        "upload.values",
        ("download.density",),
        _keeps_what_was_not_received,
        "must be update when clients receive a part of the state, because the server would replace"
        " the other part by what clients trained from nothing",
        "drop upload.values or download.density",
    ),
)


def cross_problems(
    config: Config, bad: set[str], *, num_nodes: int, has_data: bool = True
) -> Iterator[Problem]:
    """Yield what is wrong between settings, leaving aside the paths that are already bad.

    With ``has_data=False`` a path of the data that is not given is no problem.
    """
    for rule in RULES:
        if not _touches(bad, rule) and not rule.holds(config):
            yield rule.problem(config)
    yield from _own_problems(config, bad)
    if not _are_bad(bad, ("task_name", *_DATA_PATHS)):
        yield from _data_paths(config, has_data=has_data)
    counts = ("site_ids", "num_clients", "clients_per_round", "min_clients", "clients", "cohorts")
    if not _are_bad(bad, counts) and (num_nodes == 1 or config.num_clients is not None):
        yield from cohort_problems(config, config.num_clients or len(config.site_ids))


def _touches(bad: set[str], rule: Rule) -> bool:
    """Say whether a rule depends on a setting that is bad; a bad tier may set all that it can."""
    needs_tiers = any(path.split(".")[0] in TIERED for path in rule.others)
    return _are_bad(bad, (rule.path, *rule.others)) or (needs_tiers and "tiers" in bad)


def _are_bad(bad: set[str], paths: Sequence[str]) -> bool:
    return any(path in bad or path.split(".")[0].removesuffix("[]") in bad for path in paths)


def _own_problems(config: Config, bad: set[str]) -> Iterator[Problem]:
    for path, name in config.own_names():
        if not _are_bad(bad, (path.partition("[")[0],)) and (reason := why_missing(name)):
            yield Problem(
                path,
                "must name what a module has, as my_module:name",
                f"{name!r} ({reason})",
                "correct the name, or start in the folder of the module",
            )


_DATA_PATHS = ("train_path", "test_path")


def _data_paths(config: Config, *, has_data: bool) -> Iterator[Problem]:
    missing = [path for path in _DATA_PATHS if value_at(config, path) is None]
    for path in _DATA_PATHS:
        if path not in missing:
            yield from _missing_file(config, path, value_at(config, path))
        elif not has_data:
            continue
        elif config.task_name in FILE_TASKS:
            rule = f"must be given for {config.task_name}"
            demo = (
                ", or try with demo, which brings its own"
                if len(missing) == 2 and path == "train_path"
                else ""
            )
            yield Problem(path, rule, "None", f"set {path} to the file of its data{demo}")
        elif len(missing) == 1:
            rule = "must be given when the other one is"
            yield Problem(path, rule, "None", "give train_path and test_path, or neither")


def _missing_file(config: Config, path: str, location: str) -> Iterator[Problem]:
    downloads = config.task_name.startswith("20newsgroups") and location == "sklearn"
    if "://" in location or downloads:
        return
    one_file = config.task_name in FILE_TASKS
    if not (os.path.isfile if one_file else os.path.exists)(location):
        what = "an existing file" if one_file else "an existing file or folder"
        remedy = f"correct the path (looked in {os.getcwd()})"
        yield Problem(path, f"must name {what}", repr(location), remedy)
