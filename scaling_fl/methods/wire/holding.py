"""Ranks of an adapter: which coordinates of the vector a client of a smaller rank holds.

A client of rank r holds r components of each pair (``methods.pairs``), and all coordinates outside
the pairs (heads, DoRA's magnitudes).
Source: arXiv 2401.06432 (HetLoRA), section 3, where clients hold the first r components.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from scaling_fl.core.vector import Layout
from scaling_fl.methods.pairs import pairs_of


class Holding(Protocol):
    """The coordinates of the vector that a client holds; as many in every round."""

    @property
    def size(self) -> int:
        """The number of coordinates that a client holds."""

    @property
    def num_bytes(self) -> int:
        """The length of a choice."""

    def choose(self, vector: Tensor) -> bytes:
        """Choose the coordinates for a global vector (fp32); return the choice for the client."""

    def coordinates(self, choice: bytes) -> Tensor:
        """Return the coordinates of a choice (ascending int64, on the CPU)."""


class RankHolding:
    """The holding of a client of ``rank``, where the adapter has a larger rank.

    The client holds the first ``rank`` components of each pair. With ``largest``, it holds those
    with the largest |row of A| * |column of B| in the global vector (of equal ones, the lower). If
    A is frozen, the vector has no A, and |column of B| decides. This choice changes with the vector
    and is sent to the client as one bit for each component.

    Raises:
        ValueError: the layout has no pairs, or pairs of a rank below ``rank``.
    """

    def __init__(self, layout: Layout, rank: int, *, largest: bool = False) -> None:
        self._layout, self._rank, self._largest = layout, rank, largest
        self._pairs = pairs_of(layout)
        self._full_rank = min((pair.rank for pair in self._pairs), default=0)
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
        """Choose the components for a global vector (fp32, the layout's size): one bit for each."""
        if not self._largest:
            return b""
        return np.packbits(self._largest_components(vector).numpy()).tobytes()

    def coordinates(self, choice: bytes) -> Tensor:
        """Return the coordinates of the chosen components and all coordinates outside the pairs.

        Raises:
            ValueError: the choice has not ``num_bytes`` bytes, or not ``rank`` components of each
                pair.
        """
        if len(choice) != self.num_bytes:
            raise ValueError(f"a choice must have {self.num_bytes} bytes, got {len(choice)}.")
        if not self._largest:
            return self._first
        count = len(self._pairs) * self._full_rank
        bits = np.unpackbits(np.frombuffer(choice, np.uint8))[:count].astype(bool)
        components = torch.from_numpy(bits).view(len(self._pairs), self._full_rank)
        if not (components.sum(1) == self._rank).all():
            raise ValueError(f"a choice must have {self._rank} components of each pair.")
        return self._indices(components)

    def _largest_components(self, vector: Tensor) -> Tensor:
        """Mark the largest components of each pair: bool, pairs x rank."""
        vector = vector.detach().cpu()
        marks = torch.zeros(len(self._pairs), self._full_rank, dtype=torch.bool)
        for mark, pair in zip(marks, self._pairs, strict=True):
            norm = pair.b_of(vector).double().T.square().sum(1)
            if pair.a is not None:
                norm *= pair.a_of(vector).double().square().sum(1)
            mark[torch.sort(norm, descending=True, stable=True).indices[: self._rank]] = True
        return marks

    def _indices(self, components: Tensor) -> Tensor:
        """List the coordinates of the marked components and all coordinates outside the pairs."""
        held = torch.ones(self._layout.size, dtype=torch.bool)
        for marks, pair in zip(components, self._pairs, strict=True):
            if pair.a is not None:
                pair.a_of(held).copy_(marks[:, None])
            pair.b_of(held).copy_(marks)
        return held.nonzero().squeeze(1)


def magnitude_coordinates(layout: Layout) -> Tensor:
    """Mark DoRA's magnitudes: bool of the layout's size. A magnitude of 0 silences an output."""
    marks = torch.zeros(layout.size, dtype=torch.bool)
    for name, view in layout.views(marks).items():
        view.fill_(".lora_magnitude_vector" in name)
    return marks
