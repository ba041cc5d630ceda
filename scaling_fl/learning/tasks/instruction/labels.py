"""Which tokens of a conversation are learned: those of the answers, the end of each included."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling_fl.core.errors import UserError
from scaling_fl.learning.tasks.instruction.conversations import Turn
from scaling_fl.learning.tasks.instruction.templates import Template
from scaling_fl.learning.text.labelled import DataError
from scaling_fl.learning.text.plain_text import plain_text_tokenizer, special_tokens

_PROBE = (Turn("user", "one"), Turn("assistant", "two"))


class Encoded(NamedTuple):
    """The tokens of a conversation, and of each whether it is learned."""

    token_ids: NDArray[np.int32]
    trained: NDArray[np.uint8]


class Encoder:
    """Turns conversations into tokens by a template.

    An answer begins at the longest common prefix of the tokens of the text before it and of the
    whole text, as in TRL 1.16: a tokenizer may join the letters at the border. ``repair`` is a
    sentence if the template does not write the end of an answer: the end-of-text token is added.

    Raises:
        UserError: the tokenizer has no token that ends an answer.
    """

    def __init__(self, tokenizer: Any, template: Template) -> None:
        self._template = template
        self._specials = sorted(special_tokens(tokenizer))
        self._plain = plain_text_tokenizer(tokenizer)
        self._marked = tokenizer.backend_tokenizer
        for backend in (self._plain, self._marked):
            backend.no_padding()
            backend.no_truncation()
        self._end: int | None = None
        self.repair = ""
        if template.is_marked and self._writes_the_end(tokenizer):
            return
        self._end = tokenizer.eos_token_id
        if self._end is None:
            raise UserError(
                "the model's tokenizer must have an end-of-text token, which answers end with, and "
                "has none; set its eos_token and save it again."
            )
        if template.is_marked:
            self.repair = (
                "the chat template does not write the end of an answer, so that "
                f"{tokenizer.eos_token} is added: a model that never learns it never stops"
            )

    def _writes_the_end(self, tokenizer: Any) -> bool:
        encoded = self(_PROBE)
        special = {tokenizer.convert_tokens_to_ids(token) for token in self._specials}
        return bool(special & set(encoded.token_ids[encoded.trained > 0].tolist()))

    def __call__(self, turns: Sequence[Turn]) -> Encoded:
        turns, hidden = self._hidden(turns)
        pairs = [[self._ids(text, hidden) for text in pair] for pair in self._template.pairs(turns)]
        whole = pairs[-1][1]
        trained = np.zeros(len(whole), dtype=np.uint8)
        for before, until in pairs:
            end = _common(until, whole)
            if end < len(until) - 1:
                raise DataError(
                    "the model's chat template must write the first turns of a conversation alike "
                    "whatever follows, and does not, so that what an answer is cannot be told; "
                    "give conversations of one answer, or another data.template."
                )
            trained[_common(before, whole) : end] = 1
        if self._end is not None and (not whole or whole[-1] != self._end):
            whole, trained = [*whole, self._end], np.append(trained, np.uint8(1))
        return Encoded(np.array(whole, dtype=np.int32), trained)

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """Return the tokens of a conversation that waits for an answer."""
        turns, hidden = self._hidden(turns)
        return self._ids(self._template.prompt(turns), hidden)

    def _hidden(self, turns: Sequence[Turn]) -> tuple[Sequence[Turn], dict[str, str]]:
        """Put marks in place of contents, if one spells a special token: that stays a text."""
        spelled = (token in turn.content for turn in turns for token in self._specials if token)
        if not self._template.is_marked or not any(spelled):
            return turns, {}
        marks = [f"\ue000{number}\ue001" for number in range(len(turns))]
        shown = [Turn(turn.role, mark) for turn, mark in zip(turns, marks, strict=True)]
        return shown, {mark: turn.content for mark, turn in zip(marks, turns, strict=True)}

    def _ids(self, text: str, hidden: Mapping[str, str]) -> list[int]:
        if not self._template.is_marked:
            return list(self._plain.encode(text).ids)
        if not hidden:
            return list(self._marked.encode(text, add_special_tokens=False).ids)
        found: list[int] = []
        for part in re.split(f"({'|'.join(hidden)})", text):
            backend = self._plain if part in hidden else self._marked
            found += backend.encode(hidden.get(part, part), add_special_tokens=False).ids
        return found


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the length of the longest common prefix."""
    for position, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return position
    return min(len(first), len(second))
