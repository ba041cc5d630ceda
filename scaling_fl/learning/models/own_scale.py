"""The scale of an adapter at a client of a smaller rank: alpha over its own rank."""

from collections.abc import Iterator
from contextlib import contextmanager

from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from scaling_fl.core.vector import Layout
from scaling_fl.learning.models.base import ADAPTER

_B = ".lora_B."


@contextmanager
def output_times(model: nn.Module, factor: float) -> Iterator[None]:
    """Multiply the scale of B A by a factor in all layers, until the end of the block."""
    scales = [module.scaling for module in model.modules() if isinstance(module, LoraLayer)]
    before = [scale[ADAPTER] for scale in scales]
    for scale, value in zip(scales, before, strict=True):
        scale[ADAPTER] = value * factor
    try:
        yield
    finally:
        for scale, value in zip(scales, before, strict=True):
            scale[ADAPTER] = value


def b_times(vector: Tensor, layout: Layout, factor: float) -> Tensor:
    """Multiply B of all pairs by a factor, in place; returns the vector."""
    for name, view in layout.views(vector).items():
        if _B in name:
            view.mul_(factor)
    return vector
