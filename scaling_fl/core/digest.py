"""The hash of plain data."""

import hashlib
import json
from typing import Any


def digest(value: Any) -> str:
    """Return the SHA-256 (64 hexadecimal digits) of plain data, as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
