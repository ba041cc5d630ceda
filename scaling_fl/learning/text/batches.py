"""Batches: which examples go together, and how they become tensors."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling_fl.learning.text.tokenised import TokenisedExamples

Indices = NDArray[np.int64]

_WIDTH_MULTIPLE = 8
_BATCHES_PER_GROUP = 50


@dataclass(frozen=True)
class Batch:
    """Token ids and attention mask (examples, width) and labels (examples), all int64."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "Batch":
        parts = (self.input_ids, self.attention_mask, self.labels)
        return Batch(*(part.to(device, non_blocking=non_blocking) for part in parts))


def collate(examples: TokenisedExamples, indices: Indices, *, pad_token_id: int) -> Batch:
    """Pad examples on the right to the longest of them, rounded up to a multiple of 8.

    The width never exceeds ``max_seq_len``, which may be all that the model has positions for.
    """
    starts = examples.offsets[indices]
    lengths = examples.offsets[indices + 1] - starts
    longest = int(lengths.max())
    width = -(-longest // _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE
    if examples.max_seq_len is not None:
        width = max(longest, min(width, examples.max_seq_len))
    positions = np.arange(width)
    mask = positions < lengths[:, None]
    input_ids = np.full(mask.shape, pad_token_id, dtype=np.int64)
    input_ids[mask] = examples.token_ids[(starts[:, None] + positions)[mask]]
    return Batch(
        torch.from_numpy(input_ids),
        torch.from_numpy(mask.astype(np.int64)),
        torch.from_numpy(examples.labels[indices]),
    )


def epoch_batches(
    lengths: Indices,
    indices: Indices,
    *,
    batch_size: int,
    rng: np.random.Generator,
    length_grouped: bool = False,
) -> list[Indices]:
    """Order one epoch over ``indices`` anew; the last partial batch is kept.

    ``length_grouped`` puts texts of similar length together, for less padding, and still visits
    them in random order.
    """
    order = rng.permutation(indices)
    if not length_grouped:
        return _cut(order, batch_size)
    groups = _cut(order, batch_size * _BATCHES_PER_GROUP)
    ordered = [group[np.argsort(-lengths[group], kind="stable")] for group in groups]
    batches = [batch for group in ordered for batch in _cut(group, batch_size)]
    return [batches[position] for position in rng.permutation(len(batches))]


def evaluation_batches(lengths: Indices, batch_size: int) -> list[Indices]:
    """Cut all examples into fixed batches of similar length, the longest first.

    The first batch takes the most memory, so what does not fit fails at once.
    """
    return _cut(np.argsort(-lengths, kind="stable"), batch_size)


def _cut(order: Indices, size: int) -> list[Indices]:
    return [order[start : start + size] for start in range(0, len(order), size)]
