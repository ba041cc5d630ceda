"""An update is a vector: the trainable parameters live in one contiguous fp32 buffer."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the trainable parameters, in the order of the vector."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, named_parameters: Iterable[tuple[str, Tensor]]) -> "Layout":
        """Describe the parameters that require a gradient; frozen parameters are left out."""
        trainable = [(name, tuple(p.shape)) for name, p in named_parameters if p.requires_grad]
        return cls(tuple(name for name, _ in trainable), tuple(shape for _, shape in trainable))

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        return tuple(math.prod(shape) for shape in self.shapes)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """The first index of each parameter, followed by the size of the vector."""
        return tuple(accumulate(self.sizes, initial=0))

    @property
    def size(self) -> int:
        return self.offsets[-1]

    @property
    def places(self) -> tuple[slice, ...]:
        """The place of each parameter in the vector."""
        return tuple(slice(*ends) for ends in pairwise(self.offsets))

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Return each parameter's view into a vector of ``size`` elements; no data is copied."""
        rows = zip(self.names, self.shapes, self.offsets[:-1], self.sizes, strict=True)
        return {name: flat[offset : offset + n].view(shape) for name, shape, offset, n in rows}

    def to_json(self) -> list[list[object]]:
        return [[n, list(shape)] for n, shape in zip(self.names, self.shapes, strict=True)]

    @classmethod
    def from_json(cls, entries: Sequence[Sequence[object]]) -> "Layout":
        names = tuple(str(name) for name, _ in entries)
        return cls(names, tuple(tuple(shape) for _, shape in entries))  # type: ignore[arg-type]


def flatten_parameters(model: nn.Module) -> tuple[Layout, Tensor]:
    """Move a model's trainable parameters into one fp32 vector; they become views into it."""
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    layout = Layout.of(trainable)
    flat = torch.empty(layout.size, dtype=torch.float32, device=trainable[0][1].device)
    views = layout.views(flat)
    for name, parameter in trainable:
        views[name].copy_(parameter.detach())
        parameter.data = views[name]
    return layout, flat
