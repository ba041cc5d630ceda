"""How much memory a training step's activations take, and how they take less."""

from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from scaling_fl.core.errors import UserError
from scaling_fl.learning.models.outline import is_outline
from scaling_fl.learning.models.shapes import on_shapes
from scaling_fl.learning.task import Batch, LossFunction


def activation_bytes(model: nn.Module, loss: LossFunction, batch: Batch) -> int:
    """Count the bytes that a forward pass keeps for the backward pass, parameters aside.

    Runs one such pass in fp32; that of an outline computes shapes, and no values.
    """
    if not is_outline(model):
        return _kept_bytes(model, loss, batch)
    with on_shapes(model) as outline:
        return _kept_bytes(outline, loss, batch)


def _kept_bytes(model: nn.Module, loss: LossFunction, batch: Batch) -> int:
    weights = {_storage(parameter) for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = _storage(tensor)
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

    Raises:
        UserError: the layers of the model cannot be computed again.
    """
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise UserError(
            "gradient_checkpointing must be False for a model whose layers transformers cannot "
            f"compute again, got a {type(model).__name__}; drop it."
        )
    model.config.use_cache = False
    model.activation_checkpointing_enable({"use_reentrant": False})


def _storage(tensor: Tensor) -> int:
    """Identify what holds the values of a tensor; where there are none, they have no address."""
    return int(tensor.untyped_storage()._cdata)
