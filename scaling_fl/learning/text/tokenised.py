"""Texts are tokenised once, by one process; all processes map the same arrays into memory."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from scaling_fl.learning.cache import cache_folder, cached_folder
from scaling_fl.learning.task import Batch, Indices
from scaling_fl.learning.text.arrays import arrays_are_whole, load_arrays, read_facts, save_arrays
from scaling_fl.learning.text.labelled import DataError, Labelled
from scaling_fl.learning.text.plain_text import (
    HasSpecialTokens,
    count_special_tokens,
    plain_text_tokenizer,
    serialised,
)

_FORMAT_VERSION = 1
_FOLDER_VERSION = 2
"""Of the cache's folders alone: in those of version 1, texts could forge special tokens."""
_TEXTS_PER_CALL = 1000
_WIDTH_MULTIPLE = 8


class FastTokenizer(HasSpecialTokens, Protocol):
    """What we use of the fast tokenizers of transformers."""

    is_fast: bool
    truncation_side: str
    padding_side: str
    pad_token_id: int
    model_input_names: list[str]


@dataclass(frozen=True, kw_only=True)
class TokenisedExamples:
    """Examples as flat arrays: ``token_ids[offsets[i]:offsets[i + 1]]`` is example i.

    ``token_ids`` is int32, ``offsets`` int64 of n + 1, ``labels`` int64 of n; read-only views of
    the cache. None is longer than ``max_seq_len``; ``key`` identifies them, ``source`` their texts.
    Pairs of texts have ``segments`` (uint8, one for each token) where the tokenizer's model tells
    both texts apart by them; ``owners`` (int64 of n) says whose each is, if the data does,
    and ``groups`` (int64 of n) which group each is of.
    """

    token_ids: NDArray[np.int32]
    offsets: Indices
    labels: Indices
    max_seq_len: int
    pad_token_id: int
    padding_side: str = "right"
    key: str = ""
    source: str = ""
    segments: NDArray[np.uint8] | None = None
    owners: Indices | None = None
    groups: Indices | None = None

    @cached_property
    def lengths(self) -> Indices:
        return np.diff(self.offsets)

    @property
    def strata(self) -> Indices:
        return self.labels

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Indices) -> Batch:
        """Pad examples on their side to the longest of them, rounded up to a multiple of 8.

        The tensors are ``input_ids``, ``attention_mask`` and for segments ``token_type_ids``
        (examples, width), and ``labels`` (examples), all int64. The width never exceeds
        ``max_seq_len``, which may be all that the model has positions for.
        """
        begins = self.offsets[indices]
        lengths = self.offsets[indices + 1] - begins
        longest = int(lengths.max())
        width = -(-longest // _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE
        width = max(longest, min(width, self.max_seq_len))
        positions = np.tile(np.arange(width), (len(lengths), 1))
        if self.padding_side == "left":
            positions -= (width - lengths)[:, None]
        mask = (positions >= 0) & (positions < lengths[:, None])
        places = (begins[:, None] + positions)[mask]
        tensors = {
            "input_ids": _padded(mask, self.token_ids[places], self.pad_token_id),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
            "labels": torch.from_numpy(self.labels[indices]),
        }
        if self.segments is not None:
            tensors["token_type_ids"] = _padded(mask, self.segments[places], 0)
        return Batch(tensors, indices)


def _padded(mask: NDArray[np.bool_], values: NDArray[Any], padding: int) -> torch.Tensor:
    padded = np.full(mask.shape, padding, dtype=np.int64)
    padded[mask] = values
    return torch.from_numpy(padded)


def tokenise(
    load: Callable[[], Labelled],
    *,
    depends_on: Mapping[str, str],
    tokenizer: FastTokenizer,
    max_seq_len: int,
    cache_dir: Path | None = None,
) -> TokenisedExamples:
    """Return the tokenised examples; ``load`` is called only if the cache does not hold them.

    What spells a special token in a text is split into its letters, as any other text.

    ``depends_on`` names all that the result of ``load`` depends on: the task, the digest of the
    source, the choice of text, the subset. A change of one value makes a new entry in the cache.

    Raises:
        ValueError: when the tokenizer is not a fast one.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"the model's tokenizer must be a fast one, got {type(tokenizer).__name__}; "
            "use a model that has a tokenizer.json."
        )
    key = _key(depends_on, tokenizer, max_seq_len)

    def build(staging: Path) -> None:
        _write(staging, load(), tokenizer, max_seq_len)

    folder = cache_folder(cache_dir) / "tokenised" / f"{key[:32]}.{_FOLDER_VERSION}"
    cached_folder(folder, is_whole=arrays_are_whole, build=build)
    if read_facts(folder)["texts_with_special_tokens"]:
        # These data once had other tokens under this key.
        key = hashlib.sha256(f"{key}, special tokens split".encode()).hexdigest()
    return TokenisedExamples(
        **load_arrays(folder),
        max_seq_len=max_seq_len,
        pad_token_id=tokenizer.pad_token_id,
        padding_side=tokenizer.padding_side,
        key=key,
        source=_hashed({n: v for n, v in depends_on.items() if n != "inputs"}),  # the model's
    )


def whole_lengths(labelled: Labelled, tokenizer: FastTokenizer) -> Indices:
    """Count the tokens of each text or pair, special tokens included, before anything is cut."""
    backend = plain_text_tokenizer(tokenizer)
    backend.no_padding()
    backend.no_truncation()
    inputs = _inputs(labelled)
    found = (
        encoding
        for first in range(0, len(inputs), _TEXTS_PER_CALL)
        for encoding in backend.encode_batch_fast(inputs[first : first + _TEXTS_PER_CALL])
    )
    return np.fromiter((len(encoding.ids) for encoding in found), dtype=np.int64)


def _inputs(labelled: Labelled) -> list[Any]:
    if labelled.pairs is None:
        return labelled.texts
    return list(zip(labelled.texts, labelled.pairs, strict=True))


def _key(depends_on: Mapping[str, str], tokenizer: FastTokenizer, max_seq_len: int) -> str:
    import tokenizers

    content = {
        "parts": dict(depends_on),
        "tokenizer": serialised(tokenizer),
        "truncation_side": tokenizer.truncation_side,
        "tokenizers": tokenizers.__version__,
        "max_seq_len": max_seq_len,
        "format": _FORMAT_VERSION,
    }
    return _hashed(content)


def _hashed(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _encode(
    labelled: Labelled, tokenizer: FastTokenizer, max_seq_len: int
) -> dict[str, NDArray[Any]]:
    """Tokenise texts, or pairs of them, of which the longer one is cut first."""
    backend = plain_text_tokenizer(tokenizer)
    backend.no_padding()
    backend.enable_truncation(max_seq_len, direction=tokenizer.truncation_side)
    # XLNet, whose padding is on the left, also marks the end of a single text as a segment.
    has_several = labelled.pairs is not None or tokenizer.padding_side == "left"
    has_segments = has_several and "token_type_ids" in tokenizer.model_input_names
    inputs = _inputs(labelled)
    pieces = [np.empty(0, dtype=np.int32)]
    segments = [np.empty(0, dtype=np.uint8)]
    lengths: list[int] = []
    for first in range(0, len(inputs), _TEXTS_PER_CALL):
        found = backend.encode_batch_fast(inputs[first : first + _TEXTS_PER_CALL])
        encoded = [encoding.ids for encoding in found]
        pieces.append(np.fromiter(chain.from_iterable(encoded), dtype=np.int32))
        lengths.extend(map(len, encoded))
        if has_segments:
            numbers = chain.from_iterable(encoding.type_ids for encoding in found)
            segments.append(np.fromiter(numbers, dtype=np.uint8))
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    columns: dict[str, NDArray[Any]] = {"token_ids": np.concatenate(pieces), "offsets": offsets}
    return columns | ({"segments": np.concatenate(segments)} if has_segments else {})


def _write(staging: Path, labelled: Labelled, tokenizer: FastTokenizer, max_seq_len: int) -> None:
    columns = _encode(labelled, tokenizer, max_seq_len) | {"labels": labelled.labels}
    if labelled.owners is not None:
        columns["owners"] = labelled.owners
    if labelled.groups is not None:
        columns["groups"] = labelled.groups
    if empty := int((np.diff(columns["offsets"]) == 0).sum()):
        raise DataError(
            f"every text must have a token, and {empty} of {len(labelled)} have none for this "
            "tokenizer; remove them or choose another model."
        )
    forgeries = count_special_tokens(labelled.texts, tokenizer)
    facts = {"num_examples": len(labelled), "texts_with_special_tokens": forgeries}
    save_arrays(staging, columns, facts)
