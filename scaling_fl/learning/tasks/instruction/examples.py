"""The tokens of conversations as examples: padded, or several in a row."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scaling_fl.learning.cache import cache_folder, cached_folder
from scaling_fl.learning.task import Batch, Indices
from scaling_fl.learning.tasks.instruction.conversations import Conversations
from scaling_fl.learning.tasks.instruction.labels import Encoded, Encoder
from scaling_fl.learning.text.arrays import arrays_are_whole, load_arrays, read_facts, save_arrays
from scaling_fl.learning.text.labelled import DataError
from scaling_fl.learning.training.batches import first_fit

IGNORED = -100
"""The label of what is not learned, as everywhere in transformers."""
_FORMAT_VERSION = 1
_WIDTH_MULTIPLE = 8


@dataclass(frozen=True, kw_only=True)
class InstructionExamples:
    """Conversations as flat arrays: ``token_ids[offsets[i]:offsets[i + 1]]`` is example i.

    ``trained`` (uint8, one for each token) says which tokens are learned; every example has one.
    ``num_left_out`` conversations have none within ``max_seq_len``. With ``packing`` a batch puts
    several examples into each row. ``key`` identifies the tokens, ``source`` the conversations.
    """

    token_ids: NDArray[np.int32]
    trained: NDArray[np.uint8]
    offsets: Indices
    max_seq_len: int
    pad_token_id: int
    num_left_out: int
    num_cut: int
    packing: bool = False
    key: str = ""
    source: str = ""
    owners: Indices | None = None
    groups: Indices | None = None

    @cached_property
    def lengths(self) -> Indices:
        return np.diff(self.offsets)

    @cached_property
    def strata(self) -> Indices:
        return np.zeros(len(self), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def batch(self, indices: Indices) -> Batch:
        """Put examples into rows, padded on the right to a multiple of 8, at most ``max_seq_len``.

        The tensors (int64; rows, width) are ``input_ids``, ``labels``, which are IGNORED where
        nothing is learned, and ``attention_mask`` or, with packing, ``position_ids``: they begin
        anew with each example, by which models keep the examples of a row apart.
        """
        rows = first_fit(self.lengths[indices], self.max_seq_len) if self.packing else None
        placed = [[i] for i in range(len(indices))] if rows is None else rows
        widths = [int(self.lengths[indices[row]].sum()) for row in placed]
        width = min(-(-max(widths) // _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE, self.max_seq_len)
        ids = np.full((len(placed), width), self.pad_token_id, dtype=np.int64)
        labels = np.full_like(ids, IGNORED)
        positions, mask = np.zeros_like(ids), np.zeros_like(ids)
        for number, row in enumerate(placed):
            begin = 0
            for index in indices[row]:
                span = slice(self.offsets[index], self.offsets[index + 1])
                length = span.stop - span.start
                here = slice(begin, begin + length)
                ids[number, here] = self.token_ids[span]
                labels[number, here] = np.where(self.trained[span], self.token_ids[span], IGNORED)
                labels[number, begin] = IGNORED  # nothing of its own stands before it
                positions[number, here] = np.arange(length)
                mask[number, here] = 1
                begin += length
        extra = {"position_ids": positions} if self.packing else {"attention_mask": mask}
        arrays = {"input_ids": ids, "labels": labels, **extra}
        return Batch({name: torch.from_numpy(array) for name, array in arrays.items()}, indices)


def encode(
    load: Callable[[], Conversations],
    encoder: Callable[[], Encoder],
    *,
    depends_on: Mapping[str, Any],
    content: Mapping[str, Any],
    max_seq_len: int,
    pad_token_id: int,
    packing: bool,
    cache_dir: Path | None,
) -> InstructionExamples:
    """Return the examples; ``load`` and ``encoder`` are called only if the cache lacks them.

    ``content`` is what the conversations depend on, ``depends_on`` all that their tokens do beside.

    Raises:
        DataError: no conversation has a token that is learned.
    """
    source = _hashed(content)
    key = _hashed({**depends_on, "content": source, "max_seq_len": max_seq_len})

    def build(staging: Path) -> None:
        conversations = load()
        columns, facts = _arrays(conversations, encoder(), max_seq_len)
        kept = columns.pop("kept")
        for name in ("owners", "groups"):
            if (found := getattr(conversations, name)) is not None:
                columns[name] = found[kept]
        save_arrays(staging, columns, facts)

    folder = cache_folder(cache_dir) / "instructions" / key[:32]
    cached_folder(folder, is_whole=arrays_are_whole, build=build)
    facts = read_facts(folder)
    return InstructionExamples(
        **load_arrays(folder),
        max_seq_len=max_seq_len,
        pad_token_id=pad_token_id,
        num_left_out=facts["num_left_out"],
        num_cut=facts["num_cut"],
        packing=packing,
        key=key,
        source=source,
    )


def _arrays(
    conversations: Conversations, encoder: Encoder, max_seq_len: int
) -> tuple[dict[str, NDArray[Any]], dict[str, int]]:
    whole = [encoder(turns) for turns in conversations.turns]
    cut = [Encoded(ids[:max_seq_len], trained[:max_seq_len]) for ids, trained in whole]
    # The first token of a text is never learned, because nothing stands before it.
    kept = [number for number, each in enumerate(cut) if each.trained[1:].any()]
    if not kept:
        raise DataError(
            f"a conversation must have a token of an answer within max_seq_len={max_seq_len}, and "
            f"none of {len(cut)} has; raise max_seq_len."
        )
    lengths = [len(cut[number].token_ids) for number in kept]
    columns = {
        "token_ids": np.concatenate([cut[number].token_ids for number in kept]),
        "trained": np.concatenate([cut[number].trained for number in kept]),
        "offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "kept": np.array(kept, dtype=np.int64),
    }
    num_cut = sum(len(ids) > max_seq_len for ids, _ in whole)
    return columns, {"num_left_out": len(cut) - len(kept), "num_cut": num_cut}


def _hashed(content: Mapping[str, Any]) -> str:
    text = json.dumps([content, _FORMAT_VERSION], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
