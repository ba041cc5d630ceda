"""The rules between settings: what belongs together, and what excludes each other."""

from collections.abc import Callable, Iterator, Sequence

from scaling_fl.config.base_rules import BASE
from scaling_fl.config.client_rules import cohort_problems
from scaling_fl.config.conditions import is_set
from scaling_fl.config.data_rules import (
    COLUMNS,
    DATA,
    DATA_PATHS,
    ColumnsOf,
    column_problems,
    path_problems,
)
from scaling_fl.config.document_rules import DOCUMENTS
from scaling_fl.config.effects import EFFECTS
from scaling_fl.config.evaluation_rules import EVALUATION, question_problems
from scaling_fl.config.image_rules import IMAGES
from scaling_fl.config.load_rules import LOAD
from scaling_fl.config.merge_row import MergeRow
from scaling_fl.config.merges import row_of
from scaling_fl.config.own import why_missing
from scaling_fl.config.privacy_rules import PRIVACY
from scaling_fl.config.problems import Problem, Rule
from scaling_fl.config.schema import Config
from scaling_fl.config.tier_rules import TIERS

TIERED = ("tiers", "download", "upload", "num_local_steps")
"""Settings, or their sections, that a tier may have its own of."""


def _keeps_what_was_not_received(config: Config) -> bool:
    sparse = any(tier.download.is_sparse for tier in config.by_tier())
    return not sparse or config.upload.values != "state"


def _row(config: Config) -> MergeRow:
    return row_of(config.merge.method)


def _trains_pairs(config: Config) -> bool:
    return config.adapter.kind in ("lora", "dora") and not config.adapter.freeze_a


def _has_the_pairs_of_its_merge(config: Config) -> bool:
    return _trains_pairs(config) or not _row(config).needs_pairs


def _corrects_means(config: Config) -> bool:
    chosen = config.server.bias_correction
    return config.server.optimiser in ("adam", "adamw") if chosen is None else chosen


def _is_default_where_clients_keep_parts(path: str) -> Callable[[Config], bool]:
    return lambda config: not _row(config).personal or not is_set(config, path)


def _can_be_reached(config: Config) -> bool:
    target = config.stop_when.target
    return target is None or config.stop_when.is_of_loss or 0 < target <= 1


RULES: tuple[Rule, ...] = (
    *EFFECTS,
    *PRIVACY,
    *TIERS,
    *DATA,
    *EVALUATION,
    *BASE,
    *LOAD,
    *IMAGES,
    *DOCUMENTS,
    Rule(
        "upload.values",
        ("download.density",),
        _keeps_what_was_not_received,
        "must be update when clients receive a part of the state, because the server would replace"
        " the other part by what clients trained from nothing",
        "drop upload.values or download.density",
    ),
    Rule(
        "merge.method",
        ("adapter.kind", "adapter.freeze_a"),
        _has_the_pairs_of_its_merge,
        "must be another one unless A and B of an adapter are trained, which it tells apart",
        "set adapter.kind=lora or dora, leave adapter.freeze_a alone, or change merge.method",
    ),
    Rule(
        "merge.on",
        ("adapter.kind", "adapter.freeze_a"),
        lambda c: c.merge.on == "factors" or _trains_pairs(c),
        "must be factors unless A and B of an adapter are trained",
        "set adapter.kind=lora or dora, leave adapter.freeze_a alone, or drop merge.on",
    ),
    Rule(
        "merge.method",
        ("client_freeze",),
        lambda c: not _row(c).in_part or not c.client_freeze,
        "must be another one with client_freeze, because both of them say what a client changes",
        "drop client_freeze or change merge.method",
    ),
    Rule(
        "server.optimiser",
        ("server.bias_correction", "merge.method"),
        lambda c: not _row(c).turns or not _corrects_means(c),
        "must not correct its means where A and B step every other round, because the correction"
        " counts all rounds",
        "set server.bias_correction=False, or change server.optimiser or merge.method",
    ),
    Rule(
        "stop_when.target",
        ("stop_when.metric",),
        _can_be_reached,
        "must be above 0 and at most 1 for a score",
        "give such a share or another stop_when.metric",
    ),
    *(
        Rule(
            path,
            ("merge.method",),
            _is_default_where_clients_keep_parts(path),
            f"must be left alone where {what} stay with the clients",
            f"drop {path} or change merge.method",
        )
        for path, what in (
            ("download.keep_heads", "the heads"),
            ("upload.keep_heads", "the heads"),
            ("tier_ranks", "the columns of B, which it compares,"),
        )
    ),
)


def cross_problems(
    config: Config,
    bad: set[str],
    *,
    num_nodes: int,
    has_data: bool = True,
    columns_of: ColumnsOf | None = None,
) -> Iterator[Problem]:
    """Yield what is wrong between settings, leaving aside the paths that are already bad.

    With ``has_data=False`` data that is not named is no problem.
    """
    for rule in RULES:
        if not _touches(bad, rule) and not rule.holds(config):
            yield rule.problem(config)
    yield from _own_problems(config, bad)
    if not _are_bad(bad, ("task_name", *DATA_PATHS)):
        found = list(path_problems(config, has_data=has_data))
        yield from found
        if has_data and not _are_bad(bad, COLUMNS):
            yield from column_problems(config, {problem.path for problem in found}, columns_of)
    if not _are_bad(bad, ("evaluation.questions",)):
        yield from question_problems(config)
    counts = ("site_ids", "num_clients", "clients_per_round", "min_clients", "clients", "cohorts")
    # Where the data is not named, each of Flower's nodes may have its own, and be a client.
    is_named = has_data or config.train_path is not None
    is_known = num_nodes == 1 and config.partition.kind != "column" and is_named
    if not _are_bad(bad, counts) and (is_known or config.num_clients is not None):
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
