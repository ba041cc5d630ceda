"""The rules of merges that move the frozen base, or change the basis of an adapter's factors."""

from scaling_fl.config.conditions import is_set
from scaling_fl.config.merges import row_of
from scaling_fl.config.problems import Rule
from scaling_fl.config.schema import Config


def _moves_base(config: Config) -> bool:
    return row_of(config.merge.method).moves_base is not None


def _draws_adapters(config: Config) -> bool:
    return row_of(config.merge.method).basis == "drawn"


def _splits_products(config: Config) -> bool:
    return config.merge.on == "products" or row_of(config.merge.method).basis == "split"


def _keeps_basis(config: Config) -> bool:
    return not _draws_adapters(config) and not _splits_products(config)


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
        ("server",),
        lambda c: not _moves_base(c) or not is_set(c, "server"),
        "must be another one unless the server takes the merged update as it is, because the base"
        " holds what goes with exactly that",
        "leave the section server alone or change merge.method",
    ),
    Rule(
        "merge.method",
        ("client_freeze",),
        lambda c: not _draws_adapters(c) or not c.client_freeze,
        "must be another one with client_freeze, because B is 0 at the start of each round, so that"
        " it would not be sent and not be trained",
        "drop client_freeze or change merge.method",
    ),
    Rule(
        "merge.method",
        ("tier_ranks",),
        lambda c: not _draws_adapters(c) or c.tier_ranks == "first",
        "must be another one with tier_ranks=largest, because all components of a fresh adapter are"
        " equally large",
        "drop tier_ranks or change merge.method",
    ),
    Rule(
        "merge.method",
        ("merge.on", "server"),
        lambda c: not _splits_products(c) or not is_set(c, "server"),
        "must keep the basis of the factors unless the server takes the merged update as it is,"
        " because any other step mixes the bases of two rounds",
        "leave the section server alone, or change merge.method or merge.on",
    ),
    Rule(
        "merge.method",
        ("merge.on", "upload.error_feedback"),
        lambda c: _keeps_basis(c) or not c.upload.error_feedback,
        "must keep the basis of the factors with upload.error_feedback, because what was held back"
        " is in the basis of its round",
        "drop upload.error_feedback, or change merge.method or merge.on",
    ),
)
