"""How a causal model reads prompts of different lengths in one batch."""

from collections.abc import Sequence
from inspect import signature
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

MOST_AT_ONCE = 32
"""Prompts of a batch at most: the keys and values of each are kept while it is answered."""


def padded_left(rows: Sequence[NDArray[np.int64]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Return rows of tokens padded to the longest, and a mask of what is no padding; int64."""
    width = max(map(len, rows))
    ids = np.full((len(rows), width), pad_token_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, width - len(tokens) :] = tokens
        mask[row, width - len(tokens) :] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def forward(model: nn.Module, ids: Tensor, mask: Tensor, **options: Any) -> Any:
    """Read tokens at the positions that the mask (rows, cached and new tokens) gives them.

    A model that computes positions by itself, or all logits always, is not told of them.
    """
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    known = signature(model.forward).parameters
    options = {"position_ids": positions, **options}
    return model(
        input_ids=ids,
        attention_mask=mask,
        **{name: value for name, value in options.items() if name in known},
    )
