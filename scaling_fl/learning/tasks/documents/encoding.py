"""Questions and pages as tokens with boxes, as VT5 was trained on them.

Source: the code of the PFL-DocVQA competition (arXiv 2312.10108).
"""

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_fl.learning.models.documents import Box, Prompt
from scaling_fl.learning.tasks.documents.rows import PageQuestion
from scaling_fl.learning.text.plain_text import plain_text_tokenizer

MOST_ANSWER_TOKENS = 64
"""Of what is learned, the end included; longer answers are cut in training alone."""


class PageEncoder:
    """Turns a question into the tokens of its prompt and its page, in small letters, and labels."""

    def __init__(self, tokenizer: Any, prompt: Prompt, max_seq_len: int) -> None:
        backend = plain_text_tokenizer(tokenizer)
        backend.no_padding()
        backend.no_truncation()
        self._backend, self._prompt, self._longest = backend, prompt, max_seq_len
        self._end = int(tokenizer.eos_token_id)

    def page(self, question: PageQuestion) -> tuple[NDArray[np.int32], NDArray[np.int16], bool]:
        """Return tokens (n), boxes (n, 4), and whether something was cut to make them fit.

        Each word is tokenised by itself, and its tokens have its box. What is too long loses its
        end, but for the token that ends a text.
        """
        prompt = self._prompt
        ids = self._tokens([prompt.template.format(question.question)])[0]
        boxes: list[Box] = [prompt.box] * len(ids)
        if prompt.has_end:
            ids, boxes = [*ids, self._end], [*boxes, prompt.end_box]
        words = self._tokens([word.lower() for word in question.words])
        for word, box in zip(words, question.boxes.tolist(), strict=True):
            ids += word
            boxes += [tuple(box)] * len(word)
        room = self._longest - 1
        was_cut = len(ids) > room
        ids, boxes = [*ids[:room], self._end], [*boxes[:room], prompt.end_box]
        return np.array(ids, np.int32), np.array(boxes, np.int16), was_cut

    def labels(self, question: PageQuestion) -> NDArray[np.int32]:
        """Return the tokens of the first answer, in small letters, and the end."""
        ids = self._tokens([question.answers[0].lower()])[0]
        return np.array([*ids[: MOST_ANSWER_TOKENS - 1], self._end], np.int32)

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        found = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        return [list(encoding.ids) for encoding in found]


def encode_questions(questions: Iterable[PageQuestion], encoder: PageEncoder) -> dict[str, Any]:
    """Return flat arrays with the offsets of each question, and ``num_cut``."""
    ids: list[NDArray[np.int32]] = []
    boxes: list[NDArray[np.int16]] = []
    labels: list[NDArray[np.int32]] = []
    answers: list[NDArray[np.uint8]] = []
    num_cut = 0
    for question in questions:
        tokens, places, was_cut = encoder.page(question)
        ids.append(tokens)
        boxes.append(places.reshape(-1))
        labels.append(encoder.labels(question))
        answers.append(written(question.answers))
        num_cut += was_cut
    return {
        "token_ids": np.concatenate(ids),
        "boxes": np.concatenate(boxes),
        "offsets": _offsets(ids),
        "label_ids": np.concatenate(labels),
        "label_offsets": _offsets(labels),
        "answers": np.concatenate(answers),
        "answer_offsets": _offsets(answers),
        "num_cut": num_cut,
    }


def written(answers: list[str]) -> NDArray[np.uint8]:
    """Write answers as bytes, none of them 0, so that a batch can carry them as a tensor."""
    return np.frombuffer(json.dumps(answers).encode(), dtype=np.uint8)


def read_back(row: NDArray[np.uint8]) -> list[str]:
    """Read what ``written`` wrote, with any number of zeros behind it."""
    found: list[str] = json.loads(row.tobytes().rstrip(b"\0"))
    return found


def spans(offsets: NDArray[np.int64]) -> list[slice]:
    """Return where each of several parts of a flat array is."""
    return [slice(begin, end) for begin, end in pairwise(offsets.tolist())]


def _offsets(parts: list[Any]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
