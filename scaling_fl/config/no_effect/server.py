"""Settings of the server that work only under another one."""

from collections.abc import Sequence

from scaling_fl.config.no_effect.rule import NoEffect
from scaling_fl.config.sections import SERVER_OPTIONS


def _option(name: str, optimisers: Sequence[str]) -> NoEffect:
    return NoEffect(
        f"server.{name}",
        "server.optimiser",
        lambda c: c.server.optimiser in optimisers,
        f"must be left alone unless server.optimiser is {' or '.join(optimisers)}",
        f"set server.optimiser={' or '.join(optimisers)}, or drop server.{name}",
    )


SERVER = tuple(_option(*item) for item in SERVER_OPTIONS.items())
