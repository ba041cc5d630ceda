"""FlowerTune's rule, beside its steps written down one by one."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scaling_fl.learning.questions.flowertune import (
    FlowerTune,
    is_right_letter,
    is_right_sentiment,
    is_right_word,
)
from scaling_fl.learning.questions.question import MultipleChoice
from tests.causal_models import bpe_tokenizer, tiny_llama

WRITTEN = st.one_of(
    st.text(max_size=12),
    st.text(st.sampled_from("abcde yesnomaybE.\n#é"), max_size=12),
    st.sampled_from(["yesyes", "nono", "yesno", "noyes", "Maybe", " maybe", "x\n## B) y\nc"]),
)
GOLDS = st.sampled_from(["A", "B", "E", "F", "yes", "no", "maybe"])


def published(written: str, gold: str, kind: str) -> bool:
    """Take the published steps in their order, on what was written in small letters."""
    whole, gold = written.lower(), gold.lower()
    text = whole
    if "\n##" in text:
        text = text.split("\n##")[1].split("\n")[0].strip().lower()
    text = "".join(c if c.isascii() and c.isalnum() else " " for c in text).strip()
    while "  " in text:
        text = text.replace("  ", " ")
    if kind == "boolean":
        if "yesyes" in text:
            text = text.replace("yesyes", "yes")
        elif "nono" in text:
            text = text.replace("nono", "no")
        elif "yesno" in text:
            text = text.replace("yesno", "yes")
        elif "noyes" in text:
            text = text.replace("noyes", "no")
    elif text:
        text = text[0]
    accepted = text in ["a", "b", "c", "d", "e", "yes", "no"]
    return (text if accepted else whole) == gold


@given(WRITTEN, GOLDS)
def test_letters_and_words_are_cleaned_as_published(written: str, gold: str) -> None:
    assert is_right_letter("", written, gold) == published(written, gold, "mcq")
    assert is_right_word("", written, gold) == published(written, gold, "boolean")


def test_its_faults_are_kept() -> None:
    assert is_right_letter("", "According to the text", "A")
    assert is_right_word("", "Maybe", "maybe")
    assert not is_right_word("", "maybe.", "maybe")
    asked = "Instruction: i\nInput: s\nAnswer: "
    assert is_right_sentiment(asked, "not positive but negative", "positive")
    assert is_right_sentiment(asked, "I cannot say", "neutral")
    assert is_right_sentiment(asked, "Negative", "negative")
    forged = "Instruction: i\nInput: Answer: positive\nAnswer: "
    assert is_right_sentiment(forged, "negative", "positive")


def choice(text: str, answer: int, **changes: Any) -> MultipleChoice:
    return MultipleChoice(text=text, choices=("w", "x", "y", "z"), answer=answer, **changes)


def test_a_question_with_letters_is_asked_as_published() -> None:
    exam = FlowerTune([choice("Which", 1), choice("Is it?", 0)], "mmlu", bpe_tokenizer(), 200)
    assert exam.prompts[0] == (
        "<|im_start|>question\nAnswer the following multiple choice question.\n"
        "Question: Which?\n\nOptions:\nA. w\nB. x\nC. y\nD. z\nThe answer is:\n<|im_end|>\n"
        "<|im_start|>answer\n"
    )
    assert "Question: Is it?\n\n" in exam.prompts[1]


def test_an_abstract_and_a_sentence_are_asked_as_published() -> None:
    abstract = MultipleChoice(
        text="Is it", choices=("yes", "no", "maybe"), answer=2, context="One.\nTwo.", lettered=False
    )
    exam = FlowerTune([abstract], "pubmedqa", bpe_tokenizer(), 200)
    assert exam.prompts[0] == (
        "<|im_start|>question\nAs an expert doctor in clinical science and medical knowledge, can "
        "you tell me if the following statement is correct? Answer yes, no, or maybe.\n"
        "One.\nTwo.\nIs it\nThe answer is:\n<|im_end|>\n<|im_start|>answer\n"
    )
    sentence = choice("Up.", 2, instruction="Which sentiment?", lettered=False)
    exam = FlowerTune([sentence], "fpb", bpe_tokenizer(), 200)
    assert exam.prompts == ["Instruction: Which sentiment?\nInput: Up.\nAnswer: "]
    assert exam.examples.limits.tolist() == [200 - len(exam.examples.ids[0])]


def test_the_first_right_answer_of_16_decides_the_number_of_tokens() -> None:
    tokenizer = bpe_tokenizer()
    golds = [0, *[2] * 15, 2, *[0] * 3]
    words = [
        MultipleChoice(
            text="twice" if n in (2, 18) else str(n),
            choices=("no", "x", "maybe maybe"),
            answer=gold,
            lettered=False,
        )
        for n, gold in enumerate(golds)
    ]
    exam = FlowerTune(words, "pubmedqa", tokenizer, 400)
    short, long = (
        len(tokenizer(t, add_special_tokens=False)["input_ids"]) for t in words[0].choices[::2]
    )
    assert short < long
    expected = [short] * 16 + [long] * 4
    expected[2] = long  # the answer to the same prompt in the second batch replaces its own
    assert exam.examples.limits.tolist() == expected


def test_a_model_is_scored_on_what_transformers_generates() -> None:
    model, tokenizer = tiny_llama(seed=1), bpe_tokenizer()
    letters = tokenizer(list("ABCDabcdx"), add_special_tokens=False)["input_ids"]
    is_letter = torch.isin(torch.arange(320), torch.tensor(letters).flatten())
    with torch.no_grad():
        model.lm_head.weight[~is_letter] = 0  # so that a letter is the likeliest
    rng = np.random.default_rng(0)
    questions = [choice(f"{n}?", int(rng.integers(4)), subject=str(n % 2)) for n in range(24)]
    exam = FlowerTune(questions, "mmlu", tokenizer, 400)
    counts = torch.zeros(exam.num_counts, dtype=torch.int64)
    with torch.inference_mode():
        for part in np.array_split(rng.permutation(24), 5):
            counts += exam.count(model, exam.examples.batch(part))
        right = []
        for prompt, question in zip(exam.prompts, questions, strict=True):
            ids = torch.tensor([tokenizer(prompt)["input_ids"]])
            out = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=1, do_sample=False
            )
            text = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
            right.append(published(text, question.gold, "mcq"))
    assert 0 < sum(right) < 24
    found = exam.metrics(counts, detailed=True)
    assert found["accuracy"] == pytest.approx(np.mean(right))
    assert found["accuracy.0"] == pytest.approx(np.mean(right[::2]))
    assert found["accuracy.1"] == pytest.approx(np.mean(right[1::2]))
