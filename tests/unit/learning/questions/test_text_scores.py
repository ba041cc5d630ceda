"""Texts are scored as by hand and as by the package rouge-score, and add up exactly."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scaling_fl.learning.questions.text_scores import (
    count_texts,
    is_exact_match,
    metrics_of_texts,
    rouge_l,
)

TEXTS = st.text(st.sampled_from("ab cAé.1\n-"), max_size=30)


@pytest.mark.parametrize(
    ("text", "reference", "score"),
    [
        ("the cat sat", "the cat sat", 1.0),
        ("The cat, sat!", "the cat sat", 1.0),
        ("police kill the gunman", "police killed the gunman", 0.75),  # Lin (2004), section 3.1
        ("the gunman kill police", "police killed the gunman", 0.5),
        ("a b", "a x y z b q", 0.5),
        ("", "", 0.0),
        ("...", "the cat", 0.0),
    ],
)
def test_rouge_l_by_hand(text: str, reference: str, score: float) -> None:
    assert rouge_l(text, reference) == pytest.approx(score, abs=1e-12)


@given(TEXTS, TEXTS)
def test_rouge_l_is_that_of_the_package(text: str, reference: str) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    expected = RougeScorer(["rougeL"]).score(reference, text)["rougeL"].fmeasure
    assert rouge_l(text, reference) == pytest.approx(expected, abs=1e-12)


def test_spaces_at_the_ends_do_not_count() -> None:
    assert is_exact_match(" Paris.\n", "Paris.")
    assert not is_exact_match("paris.", "Paris.")


def test_counts_of_parts_add_up_to_those_of_all() -> None:
    texts, references = ["a b", "c", "d e f"], ["a", "c", "f e d"]
    parts = [count_texts(texts[i : i + 1], references[i : i + 1]) for i in range(3)]
    whole = count_texts(texts, references)
    assert torch.equal(torch.stack(parts).sum(0), whole)
    found = metrics_of_texts(whole)
    assert found["exact_match"] == pytest.approx(1 / 3)
    assert found["rouge_l"] == pytest.approx((2 / 3 + 1 + 1 / 3) / 3, abs=1e-9)
