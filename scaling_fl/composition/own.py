"""What a user wrote, by its name ``my_module:name``: found, checked and counted by its source.

One mechanism for all that can be one's own. The names below are found in the folder of the caller
or of the caller's script, or among what is installed:

==============  ==================================================================================
setting         ``name`` is
==============  ==================================================================================
task_name       a function of ``TaskOptions`` that makes a ``Task`` (``learning.task``); of labelled
                texts, ``classification("my_task", corpus)`` makes one (``text.labelled.Corpus``)
merge.method    a function without arguments that makes a ``Merge`` (``methods.merging.merge``)
upload.codec,   a ``Codec`` (``methods.wire.codecs``): two functions and the length of a code
download.codec
partition.kind  a ``Partitioner`` (``methods.partitioning``): labels, num_clients, rng -> indices
metrics         a function of the confusion matrix and the labels' names (``learning.task.Metric``)
==============  ==================================================================================
"""

import hashlib
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaling_fl.config import Config
from scaling_fl.config.own import is_own, look_in_current_folder
from scaling_fl.core.errors import UserError
from scaling_fl.methods.wire.codecs import Codec

SOURCE = "source of "


def find(name: str, path: str) -> Any:
    """Import ``module:name``, which the setting at ``path`` names.

    Raises:
        UserError: there is no such module, or the module has no such name.
    """
    module, _, wanted = name.partition(":")
    look_in_current_folder()
    try:
        return getattr(importlib.import_module(module), wanted)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{path} must name what a module has, as my_module:name, got {name!r} ({error}); "
            "correct the name, or start in the folder of the module."
        ) from None


def find_callable(name: str, path: str) -> Any:
    """Import a function, or what can be called like one.

    Raises:
        UserError: there is none of that name.
    """
    found = find(name, path)
    if not callable(found):
        raise UserError(
            f"{path} must name a function, got {name!r}, which is a {type(found).__name__}; "
            "name a function of the module."
        )
    return found


def own_or(table: Mapping[str, Any], name: str, path: str) -> Any:
    """Return the row of a table, or the function of the user that is named in its place.

    Raises:
        UserError: the function of the user cannot be found.
    """
    return find_callable(name, path) if is_own(name) else table[name]


def codec(name: str, path: str) -> str | Codec:
    """Return the codec of the user of that name, checked as it decodes; other names stay.

    Raises:
        UserError: it cannot be found, or is no codec.
    """
    if not is_own(name):
        return name
    found = find(name, path)
    if not isinstance(found, Codec):
        raise UserError(
            f"{path} must name a Codec (see scaling_fl/methods/wire/codecs.py), got {name!r}, "
            f"which is a {type(found).__name__}; write my_codec = Codec(encode, decode, num_bytes)."
        )
    return found.with_finite_values()


def sources(config: Config) -> dict[str, str]:
    """Hash the source files of all that is the user's own, for the fingerprint of the run."""
    return {SOURCE + name: source_of(name, path) for path, name in config.own_names()}


def source_of(name: str, path: str) -> str:
    """Hash the file of a module and, if what it names was made in another one, that file, too."""
    module = name.partition(":")[0]
    found = find(name, path)
    modules = dict.fromkeys((module, getattr(found, "__module__", None) or module))
    files = [sys.modules[each].__file__ for each in modules if each in sys.modules]
    digest = hashlib.sha256()
    for file in files:
        digest.update(Path(file).read_bytes() if file else b"")
    return digest.hexdigest()
