"""The rules about settings without effect: a setting that would do nothing is an error.

Most rules follow from the annotations of the fields (``config.conditions``). The table below has
those that need a function of the whole configuration.
"""

from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel

from scaling_fl.config.base import conditions, sections_in
from scaling_fl.config.conditions import Condition, is_set, value_at
from scaling_fl.config.merges import MERGES
from scaling_fl.config.problems import Rule
from scaling_fl.config.schema import Config


def field_conditions(
    schema: type[BaseModel] = Config, prefix: str = ""
) -> Iterator[tuple[str, Condition]]:
    """List the dotted path of every setting with each of its conditions."""
    for name, field in schema.model_fields.items():
        path = f"{prefix}{name}"
        yield from ((path, note.inside(prefix.rstrip("."))) for note in conditions(field))
        for section, mark in sections_in(field):
            yield from field_conditions(section, f"{path}{mark}.")


def _from_condition(path: str, condition: Condition) -> Rule:
    def holds(config: Config) -> bool:
        return any(condition.holds(tier) for tier in config.by_tier())

    return _effect(path, condition.paths, holds, condition.rule, condition.remedy(path))


def _effect(
    path: str, others: Any, works: Callable[[Config], bool], text: str, remedy: str
) -> Rule:
    """Make the rule that a setting is left alone unless it works."""
    others = (others,) if isinstance(others, str) else others
    return Rule(path, others, lambda c: not is_set(c, path) or works(c), text, remedy)


def _takes_several_steps(config: Config) -> bool:
    return any(tier.num_local_steps != 1 for tier in config.by_tier())


def _decays_in_time(direction: str) -> Callable[[Config], bool]:
    return lambda config: bool(value_at(config, f"{direction}.decay_every") < config.num_rounds)


def _some_tier_leaves(path: str) -> Callable[[Config], bool]:
    return lambda config: (
        not config.tiers or any(value_at(tier, path) is None for tier in config.tiers)
    )


def _has_smaller_rank(config: Config) -> bool:
    return any(tier.adapter.rank < config.adapter.rank for tier in config.by_tier())


def _freeze_leaves_uploads(config: Config) -> bool:
    # A frozen mask begins with a dense round, in which every density counts.
    decays = config.download.density_decay < 1 or config.upload.density_decay < 1
    return (
        not config.client_freeze
        or config.server_freeze
        or decays
        or any(tier.upload.density < tier.download.density for tier in config.by_tier())
    )


def _some_coordinates_are_not_sent(config: Config) -> bool:
    sparse = any(tier.upload.is_sparse for tier in config.by_tier())
    return sparse or _has_smaller_rank(config) or config.client_freeze


def _merge_needs_no_gaps(config: Config) -> bool:
    row = MERGES.get(config.merge.method)
    return row is None or not row.partial


def _density_of_merge(config: Config) -> float:
    return float(config.merge.options.get("density", 0.0))


def _epsilon_ends_earlier(config: Config) -> bool:
    (_, least), chosen = config.epsilon_limit, config.privacy.target_epsilon
    return least is None or chosen is None or least < chosen


def _is_met_before_the_end(num_before: Callable[[Config], int]) -> Callable[[Config], bool]:
    """Say whether a rule about a metric that needs some values before can end the run earlier."""

    def works(config: Config) -> bool:
        every = 1 if config.stop_when.is_of_training else config.eval_every
        return (config.num_rounds - 1) // every > num_before(config)

    return works


_TABLE = (
    _effect(
        "momentum",
        "num_local_steps",
        lambda c: _takes_several_steps(c) or c.optimiser != "sgd",
        "must be 0 when a client takes a single step, which momentum cannot change",
        "raise num_local_steps or drop momentum",
    ),
    _effect(
        "prox_mu",
        "num_local_steps",
        _takes_several_steps,
        "must be 0 when a client takes a single step, which prox_mu cannot change",
        "raise num_local_steps or drop prox_mu",
    ),
    _effect(
        "scaffold",
        "num_rounds",
        lambda c: c.num_rounds > 1,
        "must be False when there is a single round, because all control variates are 0 in it",
        "raise num_rounds or drop scaffold",
    ),
    _effect(
        "scaffold",
        ("tiers", "adapter.rank"),
        lambda c: not _has_smaller_rank(c),
        "must be False when a tier has a smaller rank than adapter.rank, because its clients have"
        " no gradient of what they do not hold",
        "drop the ranks of tiers or scaffold",
    ),
    _effect(
        "cohorts",
        "num_rounds",
        lambda c: len(c.cohorts or ()) <= c.num_rounds,
        "must not list more rounds than there are",
        "raise num_rounds or shorten cohorts",
    ),
    *(
        _effect(
            path,
            "num_rounds",
            lambda c: c.num_rounds > 1,
            f"must be constant when there is a single round, which {what}",
            f"raise num_rounds or drop {path}",
        )
        for path, what in (
            ("schedule.kind", "trains at the rate that the schedule ends at"),
            ("server.schedule", "steps at the rate that the schedule begins with"),
        )
    ),
    _effect(
        "server_freeze",
        "num_rounds",
        lambda c: c.num_rounds > 1,
        "must be False when there is a single round, because the first round sends everything",
        "raise num_rounds or drop server_freeze",
    ),
    *(
        _effect(
            path,
            "tiers",
            _some_tier_leaves(path),
            "must be left alone when every tier has a value of its own",
            f"drop {path} or that of a tier",
        )
        for path in (
            *("download.codec", "download.density", "upload.codec", "upload.density"),
            "num_local_steps",
        )
    ),
    *(
        _effect(
            f"{direction}.density_decay",
            (f"{direction}.decay_every", "num_rounds"),
            _decays_in_time(direction),
            "must be left alone when the run ends before the first decay",
            f"lower {direction}.decay_every, raise num_rounds or drop {direction}.density_decay",
        )
        for direction in ("download", "upload")
    ),
    _effect(
        "upload.keep_heads",
        "client_freeze",
        lambda c: not c.client_freeze or c.download.keep_heads,
        "must be False when clients send only what they received, which is a part of the heads",
        "set download.keep_heads=True or drop upload.keep_heads",
    ),
    _effect(
        "upload.density",
        ("client_freeze", "download.density"),
        _freeze_leaves_uploads,
        "must be below download.density when clients send only what they received",
        "lower upload.density or drop upload.density",
    ),
    _effect(
        "upload.values",
        ("upload.density", "upload.density_decay"),
        lambda c: not any(tier.upload.is_sparse for tier in c.by_tier()),
        "must be update when only the largest coordinates are sent",
        "leave upload.density and upload.density_decay at 1.0, or drop upload.values",
    ),
    _effect(
        "tier_ranks",
        ("tiers", "adapter.rank"),
        _has_smaller_rank,
        "must be first unless a tier has a smaller rank than adapter.rank",
        "give a tier a smaller rank or drop tier_ranks",
    ),
    _effect(
        "tier_scale",
        ("tiers", "adapter.rank"),
        _has_smaller_rank,
        "must be left alone unless a tier has a smaller rank than adapter.rank",
        "give a tier a smaller rank or drop tier_scale",
    ),
    _effect(
        "tier_scale",
        "merge.method",
        lambda c: c.tier_scale != c.usual_tier_scale,
        "must be left alone where it is what merge.method has without it",
        "drop tier_scale",
    ),
    _effect(
        "merge.method",
        "merge.density",
        lambda c: c.merge.method != "magnitude_mask" or _density_of_merge(c) < 1.0,
        "must be mean when merge.density keeps every coordinate, because both are then the same",
        "lower merge.density or drop merge.method",
    ),
    _effect(
        "merge.trim_by",
        "merge.density",
        lambda c: _density_of_merge(c) < 1.0,
        "must be left alone when merge.density keeps every coordinate",
        "lower merge.density or drop merge.trim_by",
    ),
    _effect(
        "merge.method",
        ("upload.density", "client_freeze"),
        lambda c: _merge_needs_no_gaps(c) or _some_coordinates_are_not_sent(c),
        "must be mean when every client sends every coordinate, because both are then the same",
        "set upload.density, tiers of smaller ranks or client_freeze, or drop merge.method",
    ),
    _effect(
        "merge.weigh_by",
        ("tiers", "adapter.rank"),
        _has_smaller_rank,
        "must be client unless a tier has a smaller rank than adapter.rank",
        "give a tier a smaller rank or drop merge.weigh_by",
    ),
    *(
        _effect(
            path,
            "privacy.target_epsilon",
            _epsilon_ends_earlier,
            "must be below privacy.target_epsilon, which the run never exceeds",
            "give one of the two",
        )
        for path in ("privacy.max_epsilon", "stop_when.epsilon")
    ),
    _effect(
        "stop_when.target",
        ("num_rounds", "eval_every"),
        _is_met_before_the_end(lambda c: 0),
        "must be left alone when no round before the last one has the metric",
        "raise num_rounds, lower eval_every or drop stop_when.target",
    ),
    _effect(
        "stop_when.patience",
        ("num_rounds", "eval_every"),
        _is_met_before_the_end(lambda c: c.stop_when.patience or 0),
        "must be lower than the number of rounds before the last one that have the metric",
        "raise num_rounds, lower eval_every or lower stop_when.patience",
    ),
)

EFFECTS: tuple[Rule, ...] = (
    *(_from_condition(path, condition) for path, condition in field_conditions()),
    *_TABLE,
)
