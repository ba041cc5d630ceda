"""The pairs of an adapter: matrices A (rank x in) and B (out x rank), of which a layer adds B A.

Component j of a pair is row j of A with column j of B: only their product has a meaning. Of a
convolution, ``in`` counts the places of its kernel, too.
"""

from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor

from scaling_fl.core.vector import Layout

A, B = ".lora_A.", ".lora_B."

PARTS = ("a", "b", "rest")
"""A of all pairs, B of all pairs, and everything outside the pairs."""


class Pair(NamedTuple):
    """The places of A and B in the vector; a frozen A has none."""

    a: slice | None
    b: slice
    rank: int

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of B A: (out, in)."""
        assert self.a is not None
        return (
            (self.b.stop - self.b.start) // self.rank,
            (self.a.stop - self.a.start) // self.rank,
        )

    def a_of(self, vector: Tensor) -> Tensor:
        """Return A (rank x in) as a view into the vector."""
        assert self.a is not None
        return vector[self.a].view(self.rank, -1)

    def b_of(self, vector: Tensor) -> Tensor:
        """Return B (out x rank) as a view into the vector."""
        return vector[self.b].view(-1, self.rank)


def pairs_of(layout: Layout) -> list[Pair]:
    """List the pairs in the order of the vector."""
    places = dict(zip(layout.names, layout.places, strict=True))
    ranks = {
        name: shape[1] for name, shape in zip(layout.names, layout.shapes, strict=True) if B in name
    }
    return [
        Pair(places.get(name.replace(B, A)), places[name], rank) for name, rank in ranks.items()
    ]


def adapter_coordinates(layout: Layout) -> Tensor:
    """Mark the coordinates of the pairs: bool of the layout's size."""
    return coordinates_of(("a", "b"), layout)


def adapter_size(layout: Layout) -> int:
    """Count the coordinates of the pairs."""
    rows = zip(layout.names, layout.sizes, strict=True)
    return sum(size for name, size in rows if A in name or B in name)


def coordinates_of(parts: Collection[str], layout: Layout) -> Tensor:
    """Mark the coordinates of some of ``PARTS``: bool of the layout's size."""
    marks = torch.zeros(layout.size, dtype=torch.bool)
    for name, view in layout.views(marks).items():
        part = PARTS[0 if A in name else 1 if B in name else 2]
        view.fill_(part in parts)
    return marks
