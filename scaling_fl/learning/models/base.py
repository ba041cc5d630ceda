"""The frozen weights that an adapter is added to, which some merges move."""

from typing import Any

import torch
from torch import Tensor, nn

from scaling_fl.core.vector import Layout

_B = ".lora_B."
ADAPTER = "default"
"""PEFT's name of the only adapter that ``adapters.adapt`` puts into a model."""


class Base:
    """The weights of the adapted layers: their first values, and what they have moved by.

    The first values are copied when the base moves for the first time.
    """

    def __init__(self, model: nn.Module, layout: Layout) -> None:
        names = [name.partition(_B)[0] for name in layout.names if _B in name]
        self._layers: list[Any] = [model.get_submodule(name) for name in names]
        self._first: list[Tensor] = []
        self._moved: Tensor | None = None

    @torch.no_grad()
    def move_to(self, moved: Tensor | None) -> None:
        """Set each weight to its first value + scale * its matrix in ``moved``; None: no move.

        ``moved`` holds the matrices (out x in, fp32) flat, in the order of the layout's pairs.
        """
        if moved is self._moved:
            return
        weights = [_weight(layer) for layer in self._layers]
        self._first = self._first or [weight.clone() for weight in weights]
        for weight, first in zip(weights, self._first, strict=True):
            weight.copy_(first)
        if moved is not None:
            parts = moved.split([weight.numel() for weight in weights])
            for layer, weight, part in zip(self._layers, weights, parts, strict=True):
                weight.add_(part.view(weight.shape), alpha=layer.scaling[ADAPTER])
        self._moved = moved


def _weight(layer: Any) -> Tensor:
    """Return the weight as (out x in), which GPT-2's Conv1D has the other way round."""
    weight: Tensor = layer.get_base_layer().weight
    return weight.T if layer.fan_in_fan_out else weight
