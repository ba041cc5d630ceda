"""The rule by which FlowerTune's leaderboard scores models, to compare with its numbers.

Source: flwrlabs/flower, benchmarks/flowertune-llm/evaluation (general-nlp, medical, finance). A
model writes at most as many tokens as the first right answer of a batch of 16 questions has, and
what it wrote is cleaned and compared. The rule is kept with its faults:

(a) Any text that begins with a letter from a to e is that letter: "according" answers A.
(b) "maybe" is right only where the text is exactly that, in small or capital letters.
(c) Questions with the same prompt share one answer, the last that was written for it.
(d) It measures whether a model keeps to the format: FlowerTune's own fine-tuned Mistral-7B is
    right on 12.8 % of MMLU, half of what chance gives.
(e) A sentiment is found anywhere in a text, positive before negative, and is neutral otherwise.

Where it deviates: the model's ``generation_config`` has no effect, and no text is longer than
``max_seq_len``. Code is not evaluated, because that would run what a model wrote.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from scaling_fl.learning.questions.accuracy import accuracies, counted
from scaling_fl.learning.questions.generation import (
    Prompts,
    encode_prompts,
    stop_tokens,
    texts_of,
    write,
)
from scaling_fl.learning.questions.question import LETTERS, MultipleChoice
from scaling_fl.learning.task import Batch

_BATCH_SIZE = 16
_MOST_TOKENS = 512
"""Of a sentence, its prompt and what a model says of its sentiment."""
_ACCEPTED = {"a", "b", "c", "d", "e", "yes", "no"}
_TWICE = {"yesyes": "yes", "nono": "no", "yesno": "yes", "noyes": "no"}
_MEDICAL_EXAM = (
    "You are a medical doctor answering realworld medical entrance exam questions. Based on your "
    "understanding of basic and clinical science, medical knowledge, and mechanisms underlying "
    "health, disease, patient care, and modes of therapy, answer the following multiple-choice "
    "question. Select one correct answer from A to D. Base your answer on the current and standard "
    "practices referenced in medical guidelines."
)
INSTRUCTIONS = {
    "medmcqa": _MEDICAL_EXAM,
    "careqa": _MEDICAL_EXAM,
    "medqa": (
        "You are a medical doctor taking the US Medical Licensing Examination. You need to "
        "demonstrate your understanding of basic and clinical science, medical knowledge, and "
        "mechanisms underlying health, disease, patient care, and modes of therapy. Show your "
        "ability to apply the knowledge essential for medical practice. For the following "
        "multiple-choice question, select one correct answer from A to E. Base your answer on the "
        "current and standard practices referenced in medical guidelines."
    ),
    "pubmedqa": (
        "As an expert doctor in clinical science and medical knowledge, can you tell me if the "
        "following statement is correct? Answer yes, no, or maybe."
    ),
}
"""By layout; they are those of Meditron (epfLLM/meditron, evaluation/instructions.json)."""
_INSTRUCTION = "Answer the following multiple choice question."


def prompt_by_letters(question: MultipleChoice, layout: str) -> str:
    """Ask a question whose answer is a letter, or yes, no or maybe."""
    instruction = question.instruction or INSTRUCTIONS.get(layout, _INSTRUCTION)
    asked = _lettered(question) if question.lettered else question.text
    context = f"{question.context}\n" if question.context else ""
    prompt = f"{instruction}\n{context}{asked}\nThe answer is:\n"
    return f"<|im_start|>question\n{prompt}<|im_end|>\n<|im_start|>answer\n"


def _lettered(question: MultipleChoice) -> str:
    mark = "" if question.text.endswith(("?", ".")) else "?"
    options = [f"{letter}. {x}" for letter, x in zip(LETTERS, question.choices, strict=False)]
    return f"Question: {question.text}{mark}\n\nOptions:\n" + "\n".join(options)


def prompt_of_sentiment(question: MultipleChoice, layout: str) -> str:
    """Ask for the sentiment of a sentence."""
    return f"Instruction: {question.instruction}\nInput: {question.text}\nAnswer: "


def is_right_letter(prompt: str, text: str, gold: str) -> bool:
    """Compare the first letter of a cleaned text; the whole text, where that is no answer."""
    return _is_right(_cleaned(text)[:1], text, gold)


def is_right_word(prompt: str, text: str, gold: str) -> bool:
    """Compare a cleaned text with yes or no; the whole text, where it is neither."""
    cleaned = _cleaned(text)
    twice = next((each for each in _TWICE if each in cleaned), None)
    return _is_right(cleaned.replace(twice, _TWICE[twice]) if twice else cleaned, text, gold)


def _cleaned(text: str) -> str:
    text = text.lower()
    if "\n##" in text:
        text = text.split("\n##")[1].split("\n")[0]
    return " ".join(re.findall("[a-z0-9]+", text))


def _is_right(cleaned: str, text: str, gold: str) -> bool:
    return (cleaned if cleaned in _ACCEPTED else text.lower()) == gold.lower()


def is_right_sentiment(prompt: str, text: str, gold: str) -> bool:
    """Look for a sentiment in what stands behind the first "Answer: "."""
    said = (prompt + text).split("Answer: ")[1]
    for sentiment in ("positive", "negative"):
        if sentiment in said or sentiment.capitalize() in said:
            return gold == sentiment
    return gold == "neutral"


@dataclass(frozen=True)
class GenerationRule:
    """How a question is asked, and what is right of what a model writes."""

    prompt: Callable[[MultipleChoice, str], str]
    """(question, layout) -> the prompt"""
    is_right: Callable[[str, str, str], bool]
    """(prompt, what the model wrote, the right answer)"""


_BY_LETTER = GenerationRule(prompt_by_letters, is_right_letter)
_BY_WORD = GenerationRule(prompt_by_letters, is_right_word)
_BY_SENTIMENT = GenerationRule(prompt_of_sentiment, is_right_sentiment)
_OTHERS = {
    "pubmedqa": _BY_WORD,
    **dict.fromkeys(("fpb", "fiqa", "tfns"), _BY_SENTIMENT),
}


@dataclass(frozen=True)
class FlowerTune:
    """Questions of one layout, asked and scored by FlowerTune's rule."""

    questions: Sequence[MultipleChoice]
    layout: str
    tokenizer: Any
    max_seq_len: int

    @property
    def rule(self) -> GenerationRule:
        return _OTHERS.get(self.layout, _BY_LETTER)

    @cached_property
    def prompts(self) -> list[str]:
        return [self.rule.prompt(question, self.layout) for question in self.questions]

    @cached_property
    def subjects(self) -> list[str]:
        return sorted({question.subject for question in self.questions})

    @cached_property
    def examples(self) -> Prompts:
        ids = [self.tokenizer(prompt, verbose=False)["input_ids"] for prompt in self.prompts]
        limits = self._limits()
        if self.rule is _BY_SENTIMENT:
            limits = [max(1, _MOST_TOKENS - len(each)) for each in ids]
        return encode_prompts(ids, limits, max_seq_len=self.max_seq_len, tokenizer=self.tokenizer)

    def _limits(self) -> list[int]:
        """Count the tokens of the first right answer of each batch; of equal prompts the last."""
        firsts = [question.gold for question in self.questions[::_BATCH_SIZE]]
        sizes = [len(self.tokenizer(g, add_special_tokens=False)["input_ids"]) for g in firsts]
        last = {prompt: sizes[n // _BATCH_SIZE] for n, prompt in enumerate(self.prompts)}
        return [last[prompt] for prompt in self.prompts]

    @property
    def num_counts(self) -> int:
        return 2 * len(self.subjects)

    def count(self, model: nn.Module, batch: Batch) -> Tensor:
        """Count what a model answers: int64, for each subject its questions and the right ones."""
        written = write(model, batch, stop_tokens(model, self.tokenizer))
        pairs = zip(batch.indices.tolist(), texts_of(written, self.tokenizer), strict=True)
        right = [
            self.rule.is_right(self.prompts[index], text, self.questions[index].gold)
            for index, text in pairs
        ]
        subjects = [self.subjects.index(self.questions[i].subject) for i in batch.indices]
        device = batch.tensors["limits"].device
        facts = torch.tensor([[True] * len(right), right], device=device)
        return counted(facts, torch.tensor(subjects, device=device), len(self.subjects))

    def metrics(self, counts: Tensor, *, detailed: bool) -> dict[str, float]:
        """Turn total counts into accuracies, over all questions and (``detailed``) by subject."""
        asked, right = counts.reshape(2, -1).tolist()
        return accuracies("accuracy", asked, right, self.subjects, detailed)
