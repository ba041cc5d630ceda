"""The rules of merges that move the frozen base of an adapter."""

from scaling_fl.config.conditions import is_set
from scaling_fl.config.merges import MERGES
from scaling_fl.config.problems import Rule
from scaling_fl.config.schema import Config


def _moves_base(config: Config) -> bool:
    row = MERGES.get(config.merge.method)
    return row is not None and row.moves_base is not None


def _has_fresh_adapters(config: Config) -> bool:
    return config.merge.method == "stack"


BASE: tuple[Rule, ...] = (
    Rule(
        "merge.method",
        ("adapter.kind",),
        lambda c: not _moves_base(c) or c.adapter.kind != "dora",
        "must be another one with adapter.kind=dora, which divides by the norms of the weights that"
        " it moves",
        "set adapter.kind=lora or change merge.method",
    ),
    Rule(
        "merge.method",
        ("server.optimiser", "server.learning_rate", "server.momentum"),
        lambda c: not _moves_base(c) or not is_set(c, "server"),
        "must be another one unless the server takes the merged update as it is, because the base"
        " holds what goes with exactly that",
        "leave the section server alone or change merge.method",
    ),
    Rule(
        "merge.method",
        ("client_freeze",),
        lambda c: not _has_fresh_adapters(c) or not c.client_freeze,
        "must be another one with client_freeze, because B is 0 at the start of each round, so that"
        " it would not be sent and not be trained",
        "drop client_freeze or change merge.method",
    ),
    Rule(
        "merge.method",
        ("tier_ranks",),
        lambda c: not _has_fresh_adapters(c) or c.tier_ranks == "first",
        "must be another one with tier_ranks=largest, because all components of a fresh adapter are"
        " equally large",
        "drop tier_ranks or change merge.method",
    ),
)
