"""The rules about tiers: what makes classes of clients."""

from collections.abc import Callable
from typing import Any

from scaling_fl.config.problems import Rule
from scaling_fl.config.schema import Config

_WHO = {"share": None, "clients": None}


def _given(config: Config, name: str) -> list[Any]:
    """List the values that the tiers give of a setting."""
    return [value for tier in config.tiers if (value := getattr(tier, name)) is not None]


def _for_all_or_none(name: str) -> Callable[[Config], bool]:
    return lambda config: len(_given(config, name)) in (0, len(config.tiers))


def _largest_rank_is_the_adapters(config: Config) -> bool:
    largest = max(tier.adapter.rank for tier in config.by_tier())
    return not _given(config, "rank") or largest == config.adapter.rank


def _shares_add_up(config: Config) -> bool:
    shares = _given(config, "share")
    return not shares or len(shares) < len(config.tiers) or abs(sum(shares) - 1.0) <= 1e-6


TIERS: tuple[Rule, ...] = (
    Rule(
        "tiers",
        (),
        lambda c: len(c.tiers) != 1,
        "must be two or more",
        "give the settings of the only tier to all clients instead",
    ),
    Rule(
        "tiers[].rank",
        ("adapter.rank",),
        _largest_rank_is_the_adapters,
        "must be adapter.rank in one tier, and more in none",
        "set adapter.rank to the largest of them",
    ),
    Rule(
        "tiers",
        (),
        lambda c: len({tier.model_copy(update=_WHO) for tier in c.tiers}) == len(c.tiers),
        "must differ from each other in more than their share and their clients",
        "drop a tier that equals another one, or change its settings",
    ),
    *(
        Rule(
            f"tiers[].{name}",
            (),
            _for_all_or_none(name),
            "must be given for every tier or for none",
            f"give every tier its {name}",
        )
        for name in ("share", "clients")
    ),
    Rule("tiers[].share", (), _shares_add_up, "must add up to 1", "correct the shares"),
    Rule(
        "tiers[].share",
        ("tiers[].clients",),
        lambda c: not _given(c, "share") or not _given(c, "clients"),
        "must be left alone when tiers list their clients",
        "give one of the two",
    ),
)
