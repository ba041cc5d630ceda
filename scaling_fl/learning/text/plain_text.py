"""Texts are texts: letters that spell a special token do not become one."""

import json
import re
from collections.abc import Sequence
from typing import Any, Protocol
from uuid import uuid4

from tokenizers import Tokenizer


class HasSpecialTokens(Protocol):
    """What we use of a fast tokenizer of transformers."""

    backend_tokenizer: Any
    all_special_tokens: list[str]


def special_tokens(tokenizer: HasSpecialTokens) -> set[str]:
    """List all tokens that mean something else than text, such as [SEP], <s> and <|endoftext|>."""
    backend = tokenizer.backend_tokenizer
    added = backend.get_added_tokens_decoder().values()
    by_template = backend.encode("").tokens
    return {*(t.content for t in added if t.special), *tokenizer.all_special_tokens, *by_template}


def serialised(tokenizer: HasSpecialTokens) -> dict[str, Any]:
    """Return what a tokenizer does as JSON, less truncation and padding, which each caller sets."""
    found: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return found | {"truncation": None, "padding": None}


def plain_text_tokenizer(tokenizer: HasSpecialTokens) -> Tokenizer:
    """Copy the backend of a tokenizer so that it finds no special token in a text.

    The copy gives the same tokens for all other texts, and adds the model's own special tokens as
    before. Its ``encode_special_tokens`` keeps it from searching texts for special tokens. That
    alone is not enough: they are pieces of its vocabulary, too, and a Unigram model (as T5 has) or
    one of whole words would choose them. So those pieces get names that stand in no text.
    SentencePiece, which T5 was trained with, splits its control symbols in the same way.
    """
    serialised = tokenizer.backend_tokenizer.to_str()
    copy = Tokenizer.from_str(serialised)
    copy.encode_special_tokens = True
    # The model alone is exchanged: a new tokenizer would give its added tokens other numbers.
    model = _without(special_tokens(tokenizer), json.loads(serialised)["model"])
    copy.model = Tokenizer.from_str(json.dumps({**_BARE, "model": model})).model
    return copy


def count_special_tokens(texts: Sequence[str], tokenizer: HasSpecialTokens) -> int:
    """Count the texts in which the tokenizer, as it is, would find a special token."""
    tokens = [re.escape(token) for token in special_tokens(tokenizer) if token]
    firsts = {token[: 1 + token.startswith("\\")] for token in tokens}
    # Hundreds of tokens, as Llama 3 has, are tried only where a first letter of theirs stands.
    pattern = re.compile(f"(?=[{''.join(firsts)}])(?:{'|'.join(tokens)})", re.IGNORECASE)
    suspects = [text for text in texts if pattern.search(text)] if tokens else []
    if not suspects:
        return 0
    as_it_is = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    found = [
        [encoding.ids for encoding in backend.encode_batch_fast(suspects)]
        for backend in (_untruncated(as_it_is), _untruncated(plain_text_tokenizer(tokenizer)))
    ]
    return sum(before != after for before, after in zip(*found, strict=True))


def _untruncated(backend: Tokenizer) -> Tokenizer:
    backend.no_padding()
    backend.no_truncation()
    return backend


_BARE: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": None,
    "post_processor": None,
    "decoder": None,
}


def _without(hidden: set[str], model: dict[str, Any]) -> dict[str, Any]:
    """Rename the ``hidden`` pieces of a serialised model, which keep their numbers."""
    if isinstance(model["vocab"], list):  # Unigram, which knows its unknown piece by its number
        return model | {"vocab": [[_renamed(p, hidden), score] for p, score in model["vocab"]]}
    hidden = hidden - {model.get("unk_token")}
    vocabulary = {_renamed(piece, hidden): number for piece, number in model["vocab"].items()}
    if "merges" not in model:
        return model | {"vocab": vocabulary}
    prefix = model.get("continuing_subword_prefix") or ""
    merges = [
        [left, right]
        for left, right in model["merges"]
        if not hidden & {left, right, left + right.removeprefix(prefix)}
    ]
    return model | {"vocab": vocabulary, "merges": merges}


def _renamed(piece: str, hidden: set[str]) -> str:
    return uuid4().hex + piece if piece in hidden else piece
