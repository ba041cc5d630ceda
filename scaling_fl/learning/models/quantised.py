"""Frozen bases of 4, 8 or 16 bits, for adapters in fp32 (QLoRA, arXiv 2305.14314).

With 4 bits, a weight of a linear layer is one of 16 levels (NF4, section 3 there) times the scale
of its block of 64; with 8 bits (LLM.int8, arXiv 2208.07339) it is an integer times the scale of its
row. Embeddings, norms and the head stay fp32. With 16 bits everything is bf16.
"""

import logging
import math
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from scaling_fl.learning.models.outline import is_outline
from scaling_fl.learning.options import Load

# It asks for a library of faster kernels, and tells of each layer that it casts an input.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


_STORED_AS = {4: torch.uint8, 8: torch.int8, 16: torch.bfloat16, 32: torch.float32}
"""The type of what holds weights of so many bits."""


def loading_options(load: Load) -> dict[str, Any]:
    """Return the options of ``from_pretrained`` that load a model so, onto the CPU.

    A GPU gets the numbers that the CPU has computed: they are the same on all machines.
    """
    how = {"attn_implementation": load.attention} if load.attention else {}
    if load.bits >= 16:
        return {"dtype": _STORED_AS[load.bits], **how}
    config = BitsAndBytesConfig(
        load_in_4bit=load.bits == 4,
        load_in_8bit=load.bits == 8,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=load.double_quantisation,
        bnb_4bit_compute_dtype=torch.float32,  # autocast makes it bf16 with precision=bf16
    )
    place = {"dtype": torch.float32, "device_map": {"": "cpu"}}
    return {**place, "quantization_config": config, **how}


def settle(model: nn.Module) -> None:
    """Keep a model's 4-bit weights as they are; to be called right after it was loaded.

    On processors with AVX512-BF16, bitsandbytes 0.50.2 packs them anew in the first evaluation;
    from then on they give no gradient and cannot be dequantised.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def placed(model: nn.Module, device: torch.device) -> nn.Module:
    """Move a model with all that it is stored in; ``model.to`` leaves scales of 8 bits behind."""
    module: Any
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if _scales(module, parameter):
                setattr(module, name, parameter.to(device))
    return model.to(device)


def stored_so(model: Any, load: Load) -> Any:
    """Return a model in fp32 as ``load`` says, as if it came from a folder."""
    if load.bits == 32 and load.attention is None:
        return model
    transformers_logging.disable_progress_bar()
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        found = AutoModelForCausalLM.from_pretrained(folder, **loading_options(load))
    settle(found)
    return found


def is_stored_in(model: nn.Module, bits: int) -> bool:
    """Say whether weights of a model have so many bits."""
    return any(parameter.dtype == _STORED_AS[bits] for parameter in model.parameters())


def dequantised(model: Any) -> nn.Module:
    """Return a base in fp32, with the weights that it computes with, in place.

    Without an adapter: PEFT would round again what it merges into quantised weights.
    """
    if getattr(model, "is_quantized", False):
        transformers_logging.set_verbosity_error()
        model = model.dequantize(dtype=torch.float32)
    found: nn.Module = model.float()
    return found


def stored_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield all that the parameters of a model are stored in, by name: they, and their scales."""
    seen: set[Tensor] = set()
    for place, module in model.named_modules():
        for name, parameter in module.named_parameters(place, recurse=False):
            if parameter not in seen:  # tied to an earlier one
                seen.add(parameter)
                yield name, parameter
                yield from ((f"{name}.{part}", t) for part, t in _scales(module, parameter).items())


def _scales(module: Any, parameter: Any) -> dict[str, Tensor]:
    """Return what turns quantised numbers into weights; of other parameters nothing."""
    if (state := getattr(parameter, "quant_state", None)) is not None:
        double = {"offset": state.offset, "scales": state.state2.absmax} if state.nested else {}
        return {"absmax": state.absmax, **double}
    if parameter.dtype != torch.int8:
        return {}
    # The first forward pass moves it from the weight to the module.
    moved = module.state.SCB
    return {"SCB": parameter.SCB if moved is None else moved}


def num_weights(parameter: Tensor) -> int:
    """Count the weights of a parameter, of which a byte holds two if they have 4 bits."""
    state = getattr(parameter, "quant_state", None)
    return int(parameter.numel() if state is None else state.shape.numel())


def stored_bytes(model: nn.Module, load: Load) -> int:
    """Count the bytes of a model's parameters and their scales; of an outline, those to come."""
    if not is_outline(model):
        return sum(tensor.nbytes for _, tensor in stored_tensors(model))
    few = _quantised_weights(model) if load.bits < 16 else set()
    of_rest = 2 if load.bits == 16 else 4
    return sum(
        _quantised_bytes(parameter, load)
        if parameter in few
        else parameter.numel() * (4 if parameter.requires_grad else of_rest)
        for parameter in model.parameters()
    )


def _quantised_weights(model: Any) -> set[Tensor]:
    """Return what bitsandbytes would quantise: the weights of linear layers but the head's."""
    linear = {module.weight for module in model.modules() if isinstance(module, nn.Linear)}
    frozen = {weight for weight in linear if not weight.requires_grad}
    return frozen - {model.get_output_embeddings().weight}


def _quantised_bytes(weight: Tensor, load: Load) -> int:
    """Count the bytes of a weight, and of its scales: one for each row, or for 64 values."""
    if load.bits == 8:
        return weight.numel() + 4 * len(weight)
    blocks = math.ceil(weight.numel() / 64)
    # The second quantisation has a scale for each 256 of them, and their mean.
    scales = blocks + 4 * math.ceil(blocks / 256) + 4 if load.double_quantisation else 4 * blocks
    return math.ceil(weight.numel() / 2) + scales
