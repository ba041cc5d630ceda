"""How much memory a training step's activations take."""

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


def activation_bytes(model: nn.Module, *, batch_size: int, length: int) -> int:
    """Count the bytes that a forward pass keeps for the backward pass, parameters aside.

    Runs one such pass, in fp32 on ``batch_size`` texts that fill ``length`` tokens.
    """
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            kept[place] = tensor  # held until all are counted, so that no place comes twice
        return tensor

    model.train()
    tokens = torch.zeros(batch_size, length, dtype=torch.int64)
    mask = torch.ones_like(tokens)
    mask[0, -1] = 0  # without any padding, attention would leave its mask out
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        model(input_ids=tokens, attention_mask=mask)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
