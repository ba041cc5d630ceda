"""The optimisers of the clients, by name."""

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from scaling_fl.core.errors import UserError

Parameters = Sequence[nn.Parameter]


def _fused(kind: Callable[..., Any], parameters: Parameters, **options: Any) -> Any:
    # The fused step is one pass over memory; on a CPU several times the default's speed.
    return kind(parameters, fused=True, **options)


def _of_8_bits(kind: str, parameters: Parameters, **options: Any) -> Any:
    return getattr(import_module("bitsandbytes.optim"), kind)(parameters, **options)


def _paged(parameters: Parameters, **options: Any) -> Any:
    if parameters[0].device.type == "cpu":
        raise UserError(
            "optimiser must be another one than paged_adamw_8bit without a GPU, whose memory it "
            "saves; set optimiser=adamw_8bit, which computes the same, or take a GPU."
        )
    return _of_8_bits("PagedAdamW8bit", parameters, **options)


OPTIMISERS: dict[str, Callable[..., Any]] = {
    "sgd": partial(_fused, torch.optim.SGD),
    "adam": partial(_fused, torch.optim.Adam),
    "adamw": partial(_fused, torch.optim.AdamW),
    "adamw_8bit": partial(_of_8_bits, "AdamW8bit"),
    "paged_adamw_8bit": _paged,
}
"""Those of 8 bits are of bitsandbytes: each of their moments has 8 bits (arXiv 2110.02861)."""


def make_optimiser(
    name: str, parameters: Parameters, *, weight_decay: float, momentum: float
) -> torch.optim.Optimizer:
    """Make an optimiser whose learning rate is yet to be set.

    Raises:
        UserError: the optimiser needs a GPU, and the parameters are on the CPU.
    """
    options = {"momentum": momentum} if name == "sgd" else {}
    made: torch.optim.Optimizer = OPTIMISERS[name](
        parameters, lr=0.0, weight_decay=weight_decay, **options
    )
    return made


def forget(optimiser: torch.optim.Optimizer) -> None:
    """Set an optimiser back to before its first step, in place."""
    for state in optimiser.state.values():
        for name, value in state.items():
            if isinstance(value, Tensor) and not name.startswith("qmap"):  # the levels of 8 bits
                value.zero_()
        if isinstance(state.get("step"), int):
            state["step"] = 0
