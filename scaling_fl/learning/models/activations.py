"""How much memory a training step's activations take, and how they take less."""

from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from scaling_fl.learning.task import Batch, LossFunction


def activation_bytes(model: nn.Module, loss: LossFunction, batch: Batch) -> int:
    """Count the bytes that a forward pass keeps for the backward pass, parameters aside.

    Runs one such pass in fp32.
    """
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            kept[place] = tensor  # held until all are counted, so that no place comes twice
        return tensor

    model.train()
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss(model, batch)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def recompute_activations(model: Any) -> None:
    """Have each layer keep its input alone for the backward pass, which computes the rest again.

    The gradients stay the same to the last bit, dropout included. Source: arXiv 1604.06174.
    """
    model.config.use_cache = False
    model.activation_checkpointing_enable({"use_reentrant": False})
