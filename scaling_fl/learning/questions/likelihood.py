"""What a model finds likeliest of the answers to a question.

The texts are tokenised, and the log-probabilities summed, as lm-evaluation-harness 0.4.13 does it
(``TemplateLM._encode_pair`` and ``HFLM._loglikelihood_tokens``), so that the accuracies are equal.
It differs in one point: where a question and its longest answer are longer than ``max_seq_len``,
all answers see the same end of the question, and there each sees as much as fits beside it.
The harness reads a question once for each answer; here it is read once, and longer answers go on
from the keys and values that the model keeps of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor, nn

from scaling_fl.core.errors import InputError
from scaling_fl.learning.questions.accuracy import accuracies, counted
from scaling_fl.learning.questions.question import MultipleChoice
from scaling_fl.learning.questions.reading import forward, padded_left
from scaling_fl.learning.task import Batch, Indices

_DELIMITER = " "
_KINDS = 3
"""Numbers that are counted for each subject: questions, right ones, right ones by length."""


def encode_pairs(
    tokenizer: Any, context: str, continuations: Sequence[str]
) -> tuple[list[int], list[list[int]]]:
    """Tokenise a context, and what each continuation adds to it.

    Spaces at the end of the context belong to the continuations. Special tokens are those that the
    tokenizer adds, and none where the context begins with the text of its first one.
    """
    stem = context.rstrip()
    added = [context[len(stem) :] + continuation for continuation in continuations]
    alone, *whole = _encode(tokenizer, [stem, *(stem + each for each in added)])
    return alone, [ids[len(alone) :] for ids in whole]


def _encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    begin = tokenizer.bos_token_id
    begin = tokenizer.eos_token_id if begin is None else begin
    has_one = begin is not None and texts[0].startswith(tokenizer.decode(begin))
    options = {"add_special_tokens": False} if has_one else {}
    encoded: list[list[int]] = tokenizer(list(texts), verbose=False, **options)["input_ids"]
    return encoded


@dataclass(frozen=True, kw_only=True)
class EncodedQuestions:
    """Questions as tokens: of question i ``prompts[i]`` (int64), and of its answers ``answers[i]``.

    Together they are at most one token longer than ``max_seq_len``, as the last one is not read.
    """

    questions: Sequence[MultipleChoice]
    prompts: Sequence[NDArray[np.int64]]
    answers: Sequence[Sequence[Sequence[int]]]
    pad_token_id: int
    num_cut: int = 0
    """Questions that have lost their beginning."""

    @cached_property
    def subjects(self) -> list[str]:
        return sorted({question.subject for question in self.questions})

    @cached_property
    def key(self) -> str:
        """Identify the content by its hash."""
        digest = xxhash.xxh3_128()
        for question, prompt, answers in zip(
            self.questions, self.prompts, self.answers, strict=True
        ):
            digest.update(repr((question.answer, prompt.tolist(), answers)).encode())
        return digest.hexdigest()

    @cached_property
    def lengths(self) -> Indices:
        longest = [max(map(len, answers)) for answers in self.answers]
        return np.array([len(p) for p in self.prompts], dtype=np.int64) + longest

    @property
    def strata(self) -> Indices:
        return np.zeros(len(self), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.questions)

    def batch(self, indices: Indices) -> Batch:
        """Collate questions.

        The tensors are ``input_ids`` and ``attention_mask`` (questions, width), padded on the left;
        ``answers`` and ``answer_mask`` (questions, answers, tokens), padded at the end;
        ``num_characters`` (questions, answers) of each answer; ``gold`` and ``subject``
        (questions); all int64.
        """
        chosen = [self.questions[index] for index in indices]
        ids, mask = padded_left([self.prompts[index] for index in indices], self.pad_token_id)
        answers, answer_mask = self._answers(indices)
        sizes = np.ones(answers.shape[:2], dtype=np.int64)
        for row, question in enumerate(chosen):
            sizes[row, : len(question.answers)] = [len(each) for each in question.answers]
        tensors = {
            "input_ids": ids,
            "attention_mask": mask,
            "answers": torch.from_numpy(answers),
            "answer_mask": torch.from_numpy(answer_mask),
            "num_characters": torch.from_numpy(sizes),
            "gold": torch.tensor([question.answer for question in chosen]),
            "subject": torch.tensor([self.subjects.index(q.subject) for q in chosen]),
        }
        return Batch(tensors, indices)

    def _answers(self, indices: Indices) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        chosen = [self.answers[index] for index in indices]
        longest = max(len(ids) for answers in chosen for ids in answers)
        shape = (len(chosen), max(map(len, chosen)), longest)
        padded = np.full(shape, self.pad_token_id, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        for row, answers in enumerate(chosen):
            for column, ids in enumerate(answers):
                padded[row, column, : len(ids)] = ids
                mask[row, column, : len(ids)] = 1
        return padded, mask


def encode_questions(
    questions: Sequence[MultipleChoice], tokenizer: Any, *, max_seq_len: int
) -> EncodedQuestions:
    """Tokenise questions; where one is too long, its beginning is cut off.

    Raises:
        InputError: an answer has no tokens of its own, or leaves no room for its question.
    """
    prompts, answers, num_cut = [], [], 0
    for number, question in enumerate(questions, start=1):
        prompt, each = encode_pairs(
            tokenizer, question.prompt, [_DELIMITER + answer for answer in question.answers]
        )
        room = max_seq_len + 1 - max(map(len, each))
        _check_answers(number, each, room, max_seq_len)
        num_cut += len(prompt) > room
        prompts.append(np.array(prompt[-room:], dtype=np.int64))
        answers.append(each)
    return EncodedQuestions(
        questions=questions,
        prompts=prompts,
        answers=answers,
        pad_token_id=tokenizer.pad_token_id,
        num_cut=num_cut,
    )


def _check_answers(
    number: int, answers: Sequence[Sequence[int]], room: int, max_seq_len: int
) -> None:
    if not all(answers):
        raise InputError(
            f"every answer must have a token of its own, and the tokenizer gives none to an answer "
            f"of question {number}; remove the question."
        )
    if room < 1:
        raise InputError(
            f"max_seq_len must leave room for an answer of question {number}, which has "
            f"{max_seq_len + 1 - room} tokens, got {max_seq_len}; raise max_seq_len."
        )


def log_likelihoods(model: nn.Module, batch: Batch) -> Tensor:
    """Sum the log-probabilities of the tokens of each answer.

    Returns fp32 (questions, answers); minus infinity where a question has fewer answers.
    """
    tensors = batch.tensors
    ids, mask = tensors["input_ids"], tensors["attention_mask"]
    answers, present = tensors["answers"], tensors["answer_mask"].bool()
    output = forward(model, ids, mask, use_cache=answers.shape[2] > 1, logits_to_keep=1)
    first = output.logits[:, -1].float().log_softmax(-1)
    scores: Tensor = first.gather(1, answers[:, :, 0])
    if answers.shape[2] > 1:
        question, answer = present[:, :, 1].nonzero(as_tuple=True)
        cache = output.past_key_values
        cache.batch_select_indices(question)
        begun, read = answers[question, answer, :-1], present[question, answer, :-1]
        whole = torch.cat([mask[question], read.long()], dim=1)
        logits = forward(model, begun, whole, use_cache=True, past_key_values=cache).logits
        found = logits.float().log_softmax(-1)
        found = found.gather(2, answers[question, answer, 1:, None]).squeeze(2)
        scores[question, answer] += (found * present[question, answer, 1:]).sum(1)
    return scores.masked_fill(~present[:, :, 0], -torch.inf)


def num_counts(examples: EncodedQuestions) -> int:
    """Return the size of what ``count`` returns."""
    return _KINDS * len(examples.subjects)


def count(model: nn.Module, batch: Batch, *, num_subjects: int) -> Tensor:
    """Count what a model answers: int64 of 3 numbers for each subject.

    They are its questions, those whose right answer is the likeliest, and those whose right answer
    is the likeliest by its characters (the log-likelihood divided by their number). Of equal ones
    it is the first, and where a model computes no number, no answer is right.
    """
    tensors = batch.tensors
    scores = log_likelihoods(model, batch)
    usable = ~scores.isnan().any(1)
    by_length = scores / tensors["num_characters"]
    right = [(each.argmax(1) == tensors["gold"]) & usable for each in (scores, by_length)]
    facts = torch.stack([torch.ones_like(usable), *right])
    return counted(facts, tensors["subject"], num_subjects)


def metrics(counts: Tensor, examples: EncodedQuestions, *, detailed: bool) -> dict[str, float]:
    """Turn total counts into accuracies, over all questions and (``detailed``) by subject.

    Answers that are whole choices have ``accuracy_norm`` as well, that by their characters.
    """
    asked, right, by_length = counts.reshape(_KINDS, -1).tolist()
    found = accuracies("accuracy", asked, right, examples.subjects, detailed)
    if not all(question.lettered for question in examples.questions):
        found |= accuracies("accuracy_norm", asked, by_length, examples.subjects, False)
    return found
