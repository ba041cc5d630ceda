"""The merges that ``merge.method`` names: what makes each, and which settings it has.

The settings, their rules and their documentation follow from the rows of the table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from scaling_fl.config.own import or_own
from scaling_fl.config.types import Density


@dataclass(frozen=True)
class Option:
    """A setting of merges: its type, its default and its documentation in one line."""

    type: Any
    default: Any
    documentation: str


@dataclass(frozen=True, kw_only=True)
class MergeRow:
    """A merge, by where it is made and by what can be set of it."""

    make: str
    """``package.module:function``, which is resolved when the run is built."""
    options: Mapping[str, Option] = field(default_factory=dict)
    """The settings of the merge, by name; two merges may share a setting, not a name alone."""
    private: bool
    """Whether the guarantee of privacy holds for the merge."""
    payloads: Mapping[str, str] = field(default_factory=dict)
    """What clients send beside their updates: name -> ``package.module:function`` that computes it
    (see ``learning.task.Statistic``)."""
    partial: bool = False
    """Whether the merge divides a coordinate by the clients that sent the coordinate."""


MERGES: dict[str, MergeRow] = {
    "mean": MergeRow(make="scaling_fl.methods.merging.means:mean", private=True),
    "mean_of_senders": MergeRow(
        make="scaling_fl.methods.merging.means:mean_of_senders", private=False, partial=True
    ),
    "ties": MergeRow(
        make="scaling_fl.methods.merging.signs:ties",
        options={"density": Option(Density, 0.2, "Share of every update that is merged.")},
        private=False,
    ),
}

MergeName = Annotated[str, *or_own(MERGES, "my_module:my_merge")]


def merge_options() -> dict[str, tuple[Option, list[str]]]:
    """List the settings of all merges, each with the names of the merges that have the setting."""
    found: dict[str, tuple[Option, list[str]]] = {}
    for method, row in MERGES.items():
        for name, option in row.options.items():
            shared, methods = found.setdefault(name, (option, []))
            if option != shared:
                raise ValueError(f"two merges have different settings of one name: {name}")
            methods.append(method)
    return found
