"""What a model finds likeliest is what lm-evaluation-harness says it is."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from scaling_fl.core.errors import InputError
from scaling_fl.learning.questions.likelihood import (
    EncodedQuestions,
    count,
    encode_pairs,
    encode_questions,
    log_likelihoods,
    metrics,
    num_counts,
)
from scaling_fl.learning.questions.question import MultipleChoice
from tests.causal_models import bpe_tokenizer, tiny_gpt2, tiny_llama

WORDS = ["red", "green", "blue", "heart", "right", "question", "of", "these", "which", "maybe"]


def made_up(number: int, *, lettered: bool, seed: int = 0) -> list[MultipleChoice]:
    """Make up questions of two subjects with 2 to 5 choices of 1 to 4 words."""
    rng = np.random.default_rng(seed)

    def words(most: int) -> str:
        return " ".join(rng.choice(WORDS, rng.integers(1, most + 1)))

    return [
        MultipleChoice(
            text=words(12) + "?",
            choices=tuple(words(4) for _ in range(rng.integers(2, 6))),
            answer=int(rng.integers(0, 2)),
            subject=str(rng.choice(["colours", "organs"])),
            lettered=lettered,
        )
        for _ in range(number)
    ]


def answered(
    model: Any,
    questions: Sequence[MultipleChoice],
    tokenizer: Any,
    *,
    batch_size: int,
    length: int = 200,
) -> tuple[dict[str, float], EncodedQuestions, list[int]]:
    """Evaluate as a run does; returns the metrics, and what the model found likeliest."""
    encoded = encode_questions(questions, tokenizer, max_seq_len=length)
    counts = torch.zeros(num_counts(encoded), dtype=torch.int64)
    best: list[int] = []
    with torch.inference_mode():
        for first in range(0, len(encoded), batch_size):
            batch = encoded.batch(np.arange(first, min(first + batch_size, len(encoded))))
            counts += count(model, batch, num_subjects=len(encoded.subjects))
            best += log_likelihoods(model, batch).argmax(1).tolist()
    return metrics(counts, encoded, detailed=True), encoded, best


def by_the_harness(
    model: Any, questions: Sequence[MultipleChoice], tokenizer: Any, *, length: int = 200
) -> tuple[dict[str, float], list[list[float]]]:
    """Have the harness itself evaluate; returns its metrics and its log-likelihoods."""
    from datasets import Dataset
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    rows = [{"prompt": q.prompt, "answers": list(q.answers), "gold": q.answer} for q in questions]
    task = {
        "task": "own",
        "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": lambda doc: doc["prompt"],
        "doc_to_choice": lambda doc: doc["answers"],
        "doc_to_target": lambda doc: doc["gold"],
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True}
            for name in ("acc", "acc_norm")
        ],
    }
    found = simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, max_length=length),
        tasks=[task],
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
    )
    samples = sorted(found["samples"]["own"], key=lambda sample: sample["doc_id"])
    scores = [[float(each[0][0]) for each in sample["resps"]] for sample in samples]
    named = {name.split(",")[0]: value for name, value in found["results"]["own"].items()}
    return named, scores


@pytest.mark.slow  # the harness takes seconds to be imported
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make_model", [tiny_llama, tiny_gpt2])
@pytest.mark.parametrize("begins", [True, False])
def test_accuracy_is_that_of_the_harness_to_the_last_question(
    make_model: Callable[[], Any], begins: bool
) -> None:
    model, tokenizer = make_model(), bpe_tokenizer(begins=begins)
    for lettered in (True, False):
        questions = made_up(60, lettered=lettered)
        found, _, best = answered(model, questions, tokenizer, batch_size=7)
        named, scores = by_the_harness(model, questions, tokenizer)
        assert best == [int(np.argmax(each)) for each in scores]
        assert found["accuracy"] == pytest.approx(named["acc"], abs=1e-12)
        if not lettered:
            assert found["accuracy_norm"] == pytest.approx(named["acc_norm"], abs=1e-12)


def by_whole_texts(model: Any, encoded: EncodedQuestions) -> list[list[float]]:
    """Compute the log-likelihoods with one pass for each answer, and no padding."""
    found = []
    for prompt, answers in zip(encoded.prompts, encoded.answers, strict=True):
        scores = []
        for answer in answers:
            ids = torch.tensor([[*prompt.tolist(), *answer]])
            logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            scores.append(float(logits.gather(1, torch.tensor(answer)[:, None]).sum()))
        found.append(scores)
    return found


@pytest.mark.parametrize("make_model", [tiny_llama, tiny_gpt2])
@pytest.mark.parametrize("lettered", [True, False])
def test_a_shared_question_is_read_once_and_changes_nothing(
    make_model: Callable[[], Any], lettered: bool
) -> None:
    model, tokenizer = make_model(), bpe_tokenizer()
    encoded = encode_questions(
        made_up(12, lettered=lettered), tokenizer, max_seq_len=40 if lettered else 20
    )
    assert 0 < encoded.num_cut < 12
    with torch.inference_mode():
        expected = by_whole_texts(model, encoded)
        found = log_likelihoods(model, encoded.batch(np.arange(12)))
    for row, scores in zip(found, expected, strict=True):
        assert row[: len(scores)].tolist() == pytest.approx(scores, abs=1e-4)
        assert bool((row[len(scores) :] == -torch.inf).all())


def test_counts_of_parts_add_up_to_those_of_all() -> None:
    model, questions = tiny_llama(), made_up(20, lettered=False)
    encoded = encode_questions(questions, bpe_tokenizer(), max_seq_len=100)
    with torch.inference_mode():
        parts = [
            count(model, encoded.batch(part), num_subjects=2)
            for part in np.array_split(np.random.default_rng(0).permutation(20), 6)
        ]
        whole = count(model, encoded.batch(np.arange(20)), num_subjects=2)
    assert torch.equal(torch.stack(parts).sum(0), whole)
    assert whole.dtype == torch.int64
    assert int(whole[:2].sum()) == 20
    assert len(whole) == num_counts(encoded)


def test_accuracies_are_by_subject_where_asked_for() -> None:
    questions = made_up(30, lettered=True)
    found, encoded, best = answered(tiny_llama(), questions, bpe_tokenizer(), batch_size=30)
    assert encoded.subjects == ["colours", "organs"]
    right = np.array([b == q.answer for b, q in zip(best, questions, strict=True)])
    organs = np.array([q.subject == "organs" for q in questions])
    assert found == {
        "accuracy": right.mean(),
        "accuracy.colours": right[~organs].mean(),
        "accuracy.organs": right[organs].mean(),
    }


def test_a_model_that_computes_no_numbers_is_never_right() -> None:
    model, questions = tiny_llama(), made_up(10, lettered=True)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    found, _, _ = answered(model, questions, bpe_tokenizer(), batch_size=10)
    assert found["accuracy"] == 0


def test_spaces_before_an_answer_and_texts_that_begin_by_themselves() -> None:
    tokenizer = bpe_tokenizer()
    context, (answer,) = encode_pairs(tokenizer, "Answer:  ", ["A"])
    assert tokenizer.decode(context) == "<s>Answer:"
    assert tokenizer.decode(answer) == "  A"
    begun, _ = encode_pairs(tokenizer, "<s>Answer:", ["A"])
    assert begun == context


def test_a_length_without_room_for_an_answer_is_refused() -> None:
    questions = [
        MultipleChoice(text="Which?", choices=("red green blue", "of"), answer=0, lettered=False)
    ]
    with pytest.raises(InputError, match=r"max_seq_len must leave room .* question 1"):
        encode_questions(questions, bpe_tokenizer(), max_seq_len=1)


def test_equal_questions_have_equal_keys_and_others_do_not() -> None:
    tokenizer = bpe_tokenizer()
    first, again, other = (
        encode_questions(made_up(5, lettered=True, seed=seed), tokenizer, max_seq_len=100)
        for seed in (0, 0, 1)
    )
    assert first.key == again.key != other.key
