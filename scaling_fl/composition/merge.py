"""Configuration -> the merge: a row of the table, or a function of the user."""

import hashlib
import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scaling_fl.config import Config
from scaling_fl.config.merges import MERGES
from scaling_fl.core.errors import UserError
from scaling_fl.learning.task import Statistic
from scaling_fl.methods.merging.merge import Merge


def make_merge(config: Config) -> Merge:
    """Make the merge that ``merge.method`` names, with its options.

    Raises:
        UserError: the module or the function of the user cannot be found.
    """
    row = MERGES.get(config.merge.method)
    make = _function(row.make if row else config.merge.method)
    merge: Merge = make(
        **{name: getattr(config.merge, name) for name in (row.options if row else ())}
    )
    return merge


def payloads_of_merge(config: Config) -> Mapping[str, str]:
    """Return the other payloads that the merge needs: name -> path of the function."""
    row = MERGES.get(config.merge.method)
    return row.payloads if row else {}


def make_statistics(config: Config) -> dict[str, Statistic]:
    """Return the functions that compute the other payloads, by name."""
    return {name: _function(path) for name, path in payloads_of_merge(config).items()}


def source_of_own_merge(config: Config) -> dict[str, str]:
    """Return the hash of the file of the user's merge, for the fingerprint of the run."""
    if config.merge.method in MERGES:
        return {}
    file = sys.modules[_function(config.merge.method).__module__].__file__
    content = Path(file).read_bytes() if file else b""
    return {"merge.source": hashlib.sha256(content).hexdigest()}


def _function(path: str) -> Callable[..., Any]:
    """Import ``module:function``; the user's module may be in the current folder."""
    module, _, name = path.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            "merge.method must name a function in a module that is installed or in the current "
            f"folder, got {path} ({error}); correct the name, or start in the module's folder."
        ) from None
    return found
