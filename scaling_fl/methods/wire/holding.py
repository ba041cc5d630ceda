"""Ranks of an adapter: which coordinates of the vector a client of a smaller rank holds.

The adapter's matrices come in pairs A (rank x in) and B (out x rank); component j of a pair is row
j of A and column j of B, which only matter together. A client of rank r holds r components of every
pair, and everything that is not of a pair (heads, DoRA's magnitudes). Source: arXiv 2401.06432
(HetLoRA), section 3, whose clients hold the first r.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scaling_fl.core.vector import Layout

_A, _B = ".lora_A.", ".lora_B."


@dataclass(frozen=True)
class Part:
    """Some coordinates of a vector: ascending int64 indices, or None for all of them.

    ``num_bytes`` is what it takes to tell a client which they are.
    """

    indices: Tensor | None = None
    num_bytes: int = 0


class RankPart:
    """The part of a vector that a client of ``rank`` holds, of an adapter of a larger rank.

    It is the first components of every pair, or with ``largest`` those whose products of A's row
    and B's column have the largest norms in the global vector (of equal ones, the lower; with a
    frozen A, which the vector lacks, B's column alone). The latter change with the vector, and a
    client is told by one bit for every component.

    Raises:
        ValueError: when the layout has no pairs, or pairs of a rank below ``rank``.
    """

    def __init__(self, layout: Layout, rank: int, *, largest: bool = False) -> None:
        self._layout, self._rank, self._largest = layout, rank, largest
        self._pairs = _pairs(layout)
        self._full_rank = min((_rank_of(layout, names) for names in self._pairs), default=0)
        if rank > self._full_rank:
            raise ValueError(
                f"a client's rank must be at most the adapter's {self._full_rank}, got {rank}."
            )
        self.num_bytes = -(-len(self._pairs) * self._full_rank // 8) if largest else 0
        first = torch.zeros(len(self._pairs), self._full_rank, dtype=torch.bool)
        first[:, :rank] = True
        self._first = self._indices(first)
        self.size = len(self._first)

    def of(self, vector: Tensor) -> Part:
        """Choose the coordinates for a global vector (fp32, the layout's size)."""
        if not self._largest:
            return Part(self._first.to(vector.device))
        told = np.packbits(self._largest_components(vector).numpy()).tobytes()
        bits = np.unpackbits(np.frombuffer(told, np.uint8))[: len(self._pairs) * self._full_rank]
        heard = torch.from_numpy(bits.astype(bool)).view(len(self._pairs), self._full_rank)
        return Part(self._indices(heard).to(vector.device), len(told))

    def _largest_components(self, vector: Tensor) -> Tensor:
        """Mark the largest components of every pair: bool, pairs x rank."""
        views = self._layout.views(vector.detach().cpu())
        marks = torch.zeros(len(self._pairs), self._full_rank, dtype=torch.bool)
        for mark, names in zip(marks, self._pairs, strict=True):
            norm = torch.ones(self._full_rank, dtype=torch.float64)
            for name in names:
                matrix = views[name].double()
                norm *= (matrix if _A in name else matrix.T).square().sum(1)
            mark[torch.sort(norm, descending=True, stable=True).indices[: self._rank]] = True
        return marks

    def _indices(self, components: Tensor) -> Tensor:
        """List the coordinates of the marked components and of all that is of no pair."""
        held = torch.ones(self._layout.size, dtype=torch.bool)
        views = self._layout.views(held)
        for marks, names in zip(components, self._pairs, strict=True):
            for name in names:
                views[name].copy_(marks[:, None] if _A in name else marks)
        return held.nonzero().squeeze(1)


def adapter_coordinates(layout: Layout) -> Tensor:
    """Mark the matrices A and B of all pairs: bool of the layout's size."""
    return _marked(layout, _A, _B)


def magnitude_coordinates(layout: Layout) -> Tensor:
    """Mark DoRA's magnitudes, of which a 0 silences an output: bool of the layout's size."""
    return _marked(layout, ".lora_magnitude_vector")


def _marked(layout: Layout, *parts: str) -> Tensor:
    marks = torch.zeros(layout.size, dtype=torch.bool)
    for name, view in layout.views(marks).items():
        view.fill_(any(part in name for part in parts))
    return marks


def _pairs(layout: Layout) -> list[list[str]]:
    """Group the names of A and B by the layer they adapt; A is missing where it is frozen."""
    pairs: dict[str, list[str]] = {}
    for name in layout.names:
        if _A in name or _B in name:
            pairs.setdefault(name.replace(_A, _B), []).append(name)
    return list(pairs.values())


def _rank_of(layout: Layout, names: list[str]) -> int:
    shape = layout.shapes[layout.names.index(names[0])]
    return shape[0] if _A in names[0] else shape[1]
