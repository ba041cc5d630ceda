"""Configuration -> the merge: a row of the table, or a function of the user."""

from torch import Tensor, nn

from scaling_fl.composition.own import find_callable
from scaling_fl.config import Config
from scaling_fl.config.merges import MERGES, row_of
from scaling_fl.core.errors import UserError
from scaling_fl.core.vector import Layout
from scaling_fl.learning.task import MakeStatistic, Statistic
from scaling_fl.methods.merging.merge import Merge
from scaling_fl.methods.merging.products import on_products
from scaling_fl.methods.pairs import coordinates_of


def make_merge(config: Config) -> Merge:
    """Make the merge that ``merge.method`` names, with its options.

    Raises:
        UserError: the function of the user cannot be found.
    """
    row = MERGES.get(config.merge.method)
    make = find_callable(row.make if row else config.merge.method, "merge.method")
    merge: Merge = make(
        **{name: getattr(config.merge, name) for name in (row.options if row else ())}
    )
    if config.merge.on == "products":
        return on_products(merge, config.adapter.scale)
    return merge


def turns_of_merge(config: Config, layout: Layout) -> tuple[Tensor, ...]:
    """Mark what clients train and send in each of the merge's turns; empty: it has none."""
    return tuple(coordinates_of(parts, layout) for parts in row_of(config.merge.method).turns)


def personal_of_merge(config: Config, layout: Layout) -> Tensor | None:
    """Mark what clients train and keep; None: nothing."""
    parts = row_of(config.merge.method).personal
    return coordinates_of(parts, layout) if parts else None


def has_models_of_tiers(config: Config) -> bool:
    """Say whether the clients of a tier share a model: not where each keeps a part of its own."""
    return bool(config.tiers) and not row_of(config.merge.method).personal


def make_statistics(method: str, model: nn.Module) -> dict[str, Statistic]:
    """Make what a merge has clients compute and send beside their updates, by name.

    Raises:
        UserError: the merge of the user cannot be found, or what it names are no functions.
    """
    return {name: make(model) for name, make in _makers(method).items()}


def _makers(method: str) -> dict[str, MakeStatistic]:
    if row := MERGES.get(method):
        return {name: find_callable(make, "merge.method") for name, make in row.payloads.items()}
    found = getattr(find_callable(method, "merge.method"), "payloads", {})
    if not isinstance(found, dict) or not all(map(callable, found.values())):
        raise UserError(
            f"the payloads of {method} must be functions by name, got {found!r}; correct them."
        )
    return found
