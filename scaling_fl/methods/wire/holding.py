"""Ranks of an adapter: which coordinates of the vector a client of a smaller rank holds.

The adapter's matrices come in pairs A (rank x in) and B (out x rank); component j of a pair is row
j of A and column j of B, which only matter together. A client of rank r holds r components of every
pair, and everything that is not of a pair (heads, DoRA's magnitudes). Source: arXiv 2401.06432
(HetLoRA), section 3, whose clients hold the first r.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from scaling_fl.core.vector import Layout

_A, _B = ".lora_A.", ".lora_B."


class Holding(Protocol):
    """Which coordinates of the vector a client holds; their number is the same in every round."""

    @property
    def size(self) -> int:
        """How many coordinates a client holds."""

    @property
    def num_bytes(self) -> int:
        """The length of what ``choose`` returns."""

    def choose(self, vector: Tensor) -> bytes:
        """Choose for a global vector (fp32); return what tells a client which they are."""

    def coordinates(self, choice: bytes) -> Tensor:
        """Return the coordinates (ascending int64, on the CPU) that a choice means."""


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

    def choose(self, vector: Tensor) -> bytes:
        """Choose the components for a global vector (fp32, the layout's size): a bit for each."""
        if not self._largest:
            return b""
        return np.packbits(self._largest_components(vector).numpy()).tobytes()

    def coordinates(self, choice: bytes) -> Tensor:
        """Return the coordinates of the chosen components and of all that is of no pair.

        Raises:
            ValueError: the choice is not of ``num_bytes`` bytes, or not of ``rank`` components a
                pair.
        """
        if len(choice) != self.num_bytes:
            raise ValueError(f"a choice has {self.num_bytes} bytes, got {len(choice)}.")
        if not self._largest:
            return self._first
        count = len(self._pairs) * self._full_rank
        bits = np.unpackbits(np.frombuffer(choice, np.uint8))[:count].astype(bool)
        components = torch.from_numpy(bits).view(len(self._pairs), self._full_rank)
        if not (components.sum(1) == self._rank).all():
            raise ValueError(f"a choice has {self._rank} components of every pair.")
        return self._indices(components)

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
