"""JSON for any reader: its standard has no number that is not finite, so that such one is null."""

import json
import math
from collections.abc import Mapping
from typing import Any


def json_text(value: Any, **options: Any) -> str:
    """Write plain data as ``json.dumps`` does, and nan or an infinity as null."""
    return json.dumps(finite(value), allow_nan=False, **options)


def finite(value: Any) -> Any:
    """Return plain data with None for each number that is not finite."""
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number(value: float | None) -> float:
    """Read back a number of which ``json_text`` may have made null: it is then nan."""
    return math.nan if value is None else value
