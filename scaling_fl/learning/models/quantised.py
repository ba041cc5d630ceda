"""Frozen bases of 4, 8 or 16 bits, for adapters in fp32 (QLoRA, arXiv 2305.14314).

With 4 bits, a weight of a linear layer is one of 16 levels (NF4, section 3 there) times the scale
of its block of 64; with 8 bits (LLM.int8, arXiv 2208.07339) it is an integer times the scale of its
row. Embeddings, norms and the head stay fp32. With 16 bits everything is bf16.
"""

import logging
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from scaling_fl.core.errors import UserError
from scaling_fl.learning.options import Load

# It asks for a library of faster kernels, and tells of each layer that it casts an input.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def loading_options(load: Load) -> dict[str, Any]:
    """Return the options of ``from_pretrained`` that load a model so, onto the CPU.

    A GPU gets the numbers that the CPU has computed: they are the same on all machines.

    Raises:
        UserError: bitsandbytes is not installed.
    """
    if load.bits == 16:
        return {"dtype": torch.bfloat16}
    if load.bits == 32:
        return {"dtype": torch.float32}
    if find_spec("bitsandbytes") is None:
        raise UserError(
            f"load.bits={load.bits} needs bitsandbytes, which is not installed; install it with "
            "`pip install -c constraints.txt -e '.[quantised]'` in the folder of the project."
        )
    config = BitsAndBytesConfig(
        load_in_4bit=load.bits == 4,
        load_in_8bit=load.bits == 8,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=load.double_quantisation,
        bnb_4bit_compute_dtype=torch.float32,  # autocast makes it bf16 with precision=bf16
    )
    return {"dtype": torch.float32, "device_map": {"": "cpu"}, "quantization_config": config}


def settle(model: nn.Module) -> None:
    """Keep a model's 4-bit weights as they are; to be called right after it was loaded.

    On processors with AVX512-BF16, bitsandbytes 0.50.2 packs them anew in the first evaluation;
    from then on they give no gradient and cannot be dequantised.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


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


def stored_bytes(model: nn.Module) -> int:
    """Count the bytes of a model's parameters and their scales."""
    return sum(tensor.nbytes for _, tensor in stored_tensors(model))
