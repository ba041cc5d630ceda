"""Settings of what is trained and what travels that would do nothing."""

from collections.abc import Callable

from scaling_fl.config.no_effect.rule import NoEffect, value_at
from scaling_fl.config.schema import Config


def _decays(direction: str) -> Callable[[Config], bool]:
    return lambda config: bool(value_at(config, f"{direction}.density_decay") != 1.0)


def _decays_in_time(direction: str) -> Callable[[Config], bool]:
    return lambda config: bool(value_at(config, f"{direction}.decay_every") < config.num_rounds)


def _some_tier_leaves(path: str) -> Callable[[Config], bool]:
    return lambda config: (
        not config.tiers or any(value_at(tier, path) is None for tier in config.tiers)
    )


def _is_sparse(direction: str) -> Callable[[Config], bool]:
    return lambda config: any(getattr(c, direction).is_sparse for c in config.by_tier())


def _freeze_leaves_uploads(config: Config) -> bool:
    # A frozen mask begins with a dense round, in which every density counts.
    decays = config.download.density_decay < 1 or config.upload.density_decay < 1
    return (
        not config.client_freeze
        or config.server_freeze
        or decays
        or any(tier.upload.density < tier.download.density for tier in config.by_tier())
    )


TRAFFIC = (
    *(
        NoEffect(
            path,
            "tiers",
            _some_tier_leaves(path),
            "must be left alone when every tier has its own",
            f"drop {path} or that of a tier",
        )
        for path in (
            "download.codec",
            "download.density",
            "upload.codec",
            "upload.density",
            "num_local_steps",
        )
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
            f"{direction}.density_decay",
            f"{direction}.decay_every",
            _decays_in_time(direction),
            "must be left alone when the run ends before the first decay",
            f"lower {direction}.decay_every, raise num_rounds or drop {direction}.density_decay",
        )
        for direction in ("download", "upload")
    ),
    *(
        NoEffect(
            f"{direction}.keep_heads",
            f"{direction}.density",
            _is_sparse(direction),
            "must be False when everything is sent",
            f"set {direction}.density or drop {direction}.keep_heads",
        )
        for direction in ("download", "upload")
    ),
    *(
        NoEffect(
            f"{direction}.keep_heads",
            "adapter.kind",
            lambda c: c.adapter.kind in ("lora", "dora"),
            "must be False unless adapter.kind is lora or dora, beside which heads are trained",
            f"set adapter.kind=lora or dora, or drop {direction}.keep_heads",
        )
        for direction in ("download", "upload")
    ),
    NoEffect(
        "upload.keep_heads",
        "client_freeze",
        lambda c: not c.client_freeze or c.download.keep_heads,
        "must be False when clients send only what they received, heads in part",
        "set download.keep_heads=True or drop upload.keep_heads",
    ),
    *(
        NoEffect(
            freeze,
            "download.density",
            _is_sparse("download"),
            "must be False when everything is sent down",
            f"set download.density or drop {freeze}",
        )
        for freeze in ("client_freeze", "server_freeze")
    ),
    NoEffect(
        "server_freeze",
        "num_rounds",
        lambda c: c.num_rounds > 1,
        "must be False when there is a single round, which is dense",
        "raise num_rounds or drop server_freeze",
    ),
    NoEffect(
        "upload.error_feedback",
        "upload.codec",
        lambda c: any(tier.upload.is_lossy for tier in c.by_tier()),
        "must be False when uploads are exact",
        "set upload.codec or upload.density or drop upload.error_feedback",
    ),
    NoEffect(
        "upload.density",
        "client_freeze",
        _freeze_leaves_uploads,
        "must be below download.density when clients send only what they received",
        "lower upload.density or drop it",
    ),
    NoEffect(
        "tier_ranks",
        "tiers",
        lambda c: any((tier.rank or c.adapter.rank) < c.adapter.rank for tier in c.tiers),
        "must be first unless a tier has a smaller rank than adapter.rank",
        "give a tier a smaller rank or drop tier_ranks",
    ),
    NoEffect(
        "merge.divide_by",
        "upload.density",
        lambda c: (
            any(tier.upload.is_sparse for tier in c.by_tier())
            or any((tier.rank or c.adapter.rank) < c.adapter.rank for tier in c.tiers)
            or c.client_freeze
        ),
        "must be all when every client sends every coordinate",
        "set upload.density, tiers of smaller ranks or client_freeze, or drop merge.divide_by",
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
        "tiers",
        lambda c: not c.tiers,
        "must be False with tiers, each of which is evaluated by itself",
        "drop download.evaluate",
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
        lambda c: any(tier.upload.codec != "none" for tier in c.by_tier()),
        "must be update when uploads are exact, where both come to the same",
        "set upload.codec or drop upload.values",
    ),
    NoEffect(
        "upload.values",
        "upload.density",
        lambda c: not any(tier.upload.is_sparse for tier in c.by_tier()),
        "must be update when only the largest coordinates are sent",
        "leave upload.density and upload.density_decay at 1.0, or drop upload.values",
    ),
)
