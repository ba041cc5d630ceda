"""What a causal model writes after a prompt when it always takes the likeliest token.

What a model's ``generation_config`` says, such as a penalty for repetition, has no effect.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor, nn

from scaling_fl.learning.questions.reading import forward, padded_left
from scaling_fl.learning.task import Batch, Indices


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Prompts as tokens: after ``ids[i]`` (int64) a model writes at most ``limits[i]`` tokens."""

    ids: Sequence[NDArray[np.int64]]
    limits: Indices
    pad_token_id: int
    num_cut: int = 0
    """Prompts that have lost their beginning."""

    @cached_property
    def key(self) -> str:
        """Identify the content by its hash."""
        digest = xxhash.xxh3_128(self.limits.tobytes())
        for ids in self.ids:
            digest.update(b"%d " % len(ids))
            digest.update(ids.tobytes())
        return digest.hexdigest()

    @cached_property
    def lengths(self) -> Indices:
        return np.array([len(ids) for ids in self.ids], dtype=np.int64) + self.limits

    @property
    def strata(self) -> Indices:
        return np.zeros(len(self), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, indices: Indices) -> Batch:
        """Collate ``input_ids`` and ``attention_mask`` (prompts, width), padded on the left, and
        ``limits`` (prompts); all int64."""
        ids, mask = padded_left([self.ids[index] for index in indices], self.pad_token_id)
        limits = torch.from_numpy(self.limits[indices])
        return Batch({"input_ids": ids, "attention_mask": mask, "limits": limits}, indices)


def encode_prompts(
    prompts: Sequence[Sequence[int]], limits: Sequence[int], *, max_seq_len: int, tokenizer: Any
) -> Prompts:
    """Cut tokenised prompts and their limits to ``max_seq_len`` tokens in all, answer included.

    A prompt that is too long loses its beginning, and leaves room for one token.
    """
    longest = max_seq_len - 1
    ids = [np.array(prompt[-longest:], dtype=np.int64) for prompt in prompts]
    rooms = [min(limit, max_seq_len - len(p)) for limit, p in zip(limits, ids, strict=True)]
    return Prompts(
        ids=ids,
        limits=np.array(rooms, dtype=np.int64),
        pad_token_id=tokenizer.pad_token_id,
        num_cut=sum(len(prompt) > longest for prompt in prompts),
    )


def stop_tokens(model: nn.Module, tokenizer: Any) -> set[int]:
    """Name the tokens that end an answer: of the tokenizer, and of the model's configurations."""
    configs = [getattr(model, name, None) for name in ("config", "generation_config")]
    named = [tokenizer.eos_token_id, *(getattr(each, "eos_token_id", None) for each in configs)]
    each = [ids if isinstance(ids, list | tuple) else [ids] for ids in named]
    return {int(token) for ids in each for token in ids if token is not None}


def write(model: nn.Module, batch: Batch, stop: Collection[int]) -> list[list[int]]:
    """Have a model write after each prompt until a token of ``stop``, which is left out."""
    limits = batch.tensors["limits"]
    ids, mask = batch.tensors["input_ids"], batch.tensors["attention_mask"]
    ends = torch.tensor(sorted(stop), dtype=torch.int64, device=ids.device)
    written: list[Tensor] = []
    cache, is_done = None, limits < 1
    while not is_done.all():
        output = forward(model, ids, mask, use_cache=True, past_key_values=cache, logits_to_keep=1)
        token, cache = output.logits[:, -1].argmax(-1), output.past_key_values
        is_done = is_done | torch.isin(token, ends)
        written.append(torch.where(is_done, -1, token))
        is_done = is_done | (limits <= len(written))
        ids, mask = token[:, None], torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
    rows = torch.stack(written, dim=1).tolist() if written else [[] for _ in range(len(batch))]
    return [[token for token in row if token >= 0] for row in rows]


def texts_of(rows: Sequence[Sequence[int]], tokenizer: Any) -> list[str]:
    """Turn what a model has written into texts, without special tokens."""
    return [tokenizer.decode(row, skip_special_tokens=True) for row in rows]
