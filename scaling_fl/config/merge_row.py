"""What the table of merges says of each: a row, and the settings that a row has."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


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
    """What clients send beside their updates: name -> ``package.module:function`` that makes it
    for a model (see ``learning.task.Statistic``)."""
    of_payloads: Mapping[str, Option] = field(default_factory=dict)
    """The settings of what clients send so."""
    low_rank: bool = False
    """Whether the merge averages the products B A of an adapter's pairs."""
    turns: tuple[tuple[str, ...], ...] = ()
    """What clients train and send in round 1, 2 and so on, in turns: names of ``methods.pairs``."""
    moves_base: int | None = None
    """The merge moves the frozen weights that the pairs are added to, by the products of the
    clients and of so many more adapters; None: the frozen weights stay."""
    basis: Literal["kept", "split", "drawn"] = "kept"
    """The basis of A and B after a round: kept, that of a truncated SVD of their product (split),
    or drawn anew, with B = 0 (drawn)."""
    personal: tuple[str, ...] = ()
    """What every client trains and keeps, by the same names: it is never sent."""
    keeps: Literal["nothing", "updates", "columns"] = "nothing"
    """What a worker keeps of its clients until all have trained: their updates as they arrived, or
    these and each of them decoded, to compare column by column."""
    num_sums: Literal[1, 2] = 1
    """The exact sums of an update's size that the merge has at once."""
    by_coordinates: bool = False
    """Whether the merge compares coordinates, so that ``merge.on`` has an effect."""
    partial: bool = False
    """Whether the merge divides a coordinate by the clients that sent the coordinate."""
    breaks: Mapping[str, str] = field(default_factory=dict)
    """The laws (``conformance.merge_laws``) that the merge breaks by its nature -> why."""
    tried_with: Mapping[str, Any] = field(default_factory=dict)
    """The settings with which laws are tried, where the default makes the merge a plain mean."""

    @property
    def needs_pairs(self) -> bool:
        return self.low_rank or self.in_part

    @property
    def in_part(self) -> bool:
        """Say whether clients send a part of what an adapter adds to the model."""
        return bool(self.turns or self.personal)
