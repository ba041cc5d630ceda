"""A setting that works only under another one."""

from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

from scaling_fl.config.schema import Config


def value_at(settings: Any, path: str) -> Any:
    """Return the setting at a dotted path."""
    return reduce(getattr, path.split("."), settings)


class NoEffect(NamedTuple):
    """A setting that works only under another one and must otherwise keep its default."""

    path: str
    other: str
    works: Callable[[Config], bool]
    rule: str
    remedy: str
