"""What a user wrote, named as ``my_module:name`` in place of a name of a table.

Tasks, merges, codecs, partitioners and metrics can be named so. The module is one that is
installed, or a file in the folder that the caller is in or in that of the caller's script.
"""

import ast
import importlib.util
import re
import sys
from collections.abc import Collection, Iterator
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Annotated, get_args

from pydantic import AfterValidator, BeforeValidator

from scaling_fl.config.types import Choices, CodecName, PartitionKind, TaskName, split_at_commas

_OWN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_own(name: str) -> bool:
    """Say whether a name is ``module:name`` and so of something that the user wrote."""
    return _OWN.fullmatch(name) is not None


def or_own(names: Collection[str], example: str) -> tuple[AfterValidator, Choices]:
    """Annotate text that is one of some names or the user's own, such as ``example``."""
    return AfterValidator(partial(_checked, names, example)), Choices(*names)


def _checked(names: Collection[str], example: str, name: str) -> str:
    if name in names or is_own(name):
        return name
    named = f"one of {', '.join(names)}, or " if names else ""
    raise ValueError(f"must be {named}{example}")


AnyTask = Annotated[str, *or_own(get_args(TaskName), "my_module:my_task")]
AnyCodec = Annotated[str, *or_own(get_args(CodecName), "my_module:my_codec")]
AnyPartition = Annotated[str, *or_own(get_args(PartitionKind), "my_module:my_split")]
Metrics = Annotated[
    tuple[Annotated[str, *or_own((), "my_module:my_metric")], ...], BeforeValidator(split_at_commas)
]


def look_in_current_folder() -> None:
    """Have Python look for modules in the current folder, too, after all other places."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


def why_missing(name: str) -> str | None:
    """Say why ``module:name`` cannot be found; None: it can, as far as can be seen.

    The module is not imported, because it may import torch and take seconds.
    """
    module, _, wanted = name.partition(":")
    look_in_current_folder()
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return f"there is no module {module} in {Path.cwd()} or among those that are installed"
    tree = _parsed(spec)
    if tree is None or wanted in _names_in(tree) or "*" in _names_in(tree):
        return None
    return f"{spec.origin} has no {wanted}"


def file_of(name: str) -> str | None:
    """Return the file of the module of ``module:name``, if it can be found and is one."""
    look_in_current_folder()
    try:
        spec = importlib.util.find_spec(name.partition(":")[0])
    except (ImportError, ValueError):
        spec = None
    return spec.origin if spec and spec.has_location else None


def _parsed(spec: ModuleSpec) -> ast.Module | None:
    """Parse the source of a module; None where there is none or it says by itself what is wrong."""
    if not spec.origin or not spec.origin.endswith(".py"):
        return None
    try:
        return ast.parse(Path(spec.origin).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


def _names_in(tree: ast.Module) -> set[str]:
    return set(_bound(tree))


def _bound(tree: ast.Module) -> Iterator[str]:
    """Yield every name that a module may bind, a little more than the names that it has."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield "*" if node.name == "__getattr__" else node.name
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
