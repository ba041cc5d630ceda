"""ANLS and accuracy, against the rules of the competition written down a second time."""

import random

import pytest
import torch

from scaling_fl.learning.tasks.documents.anls import anls, is_exact
from scaling_fl.learning.tasks.documents.scoring import count_answers, metrics


def distance(left: str, right: str) -> int:
    """Wagner and Fischer's table, a row at a time."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        before, row = row, [i]
        for j, b in enumerate(right, 1):
            row.append(min(row[-1] + 1, before[j] + 1, before[j - 1] + (a != b)))
    return row[-1]


def by_definition(answers: list[str], written: str) -> tuple[int, float]:
    """Accuracy and ANLS as the competition's evaluator defines them for texts."""
    expected, said = [each.lower().strip() for each in answers], written.lower().strip()
    accuracy = int(said != "none" and any(each == said for each in expected))
    if len(said) == 0 or said == "none":
        return accuracy, 0.0
    best = max(1 - distance(each, said) / max(len(each), len(said)) for each in expected)
    return accuracy, best if best >= 0.5 else 0.0


def pairs(number: int) -> list[tuple[list[str], str]]:
    draw = random.Random(0)

    def text(length: int) -> str:
        return "".join(draw.choice("abcAB 0é") for _ in range(length))

    found = []
    for _ in range(number):
        answers = [text(draw.randint(0, 9)) for _ in range(draw.randint(1, 3))]
        near = list(draw.choice(answers))
        for _ in range(draw.randint(0, 3)):
            near.insert(draw.randint(0, len(near)), draw.choice("abc"))
        found.append((answers, draw.choice(["".join(near), text(4), "none", "NONE ", "", "  "])))
    return found


def test_a_thousand_random_pairs_agree_with_the_definition() -> None:
    compared = [(by_definition(*pair), pair) for pair in pairs(1000)]
    assert all((is_exact(*pair), anls(*pair)) == expected for expected, pair in compared)
    values = [value for (_, value), _ in compared]
    assert (min(values), max(values)) == (0.0, 1.0)
    assert len(set(values)) > 10


@pytest.mark.parametrize(
    ("answers", "written", "expected"),
    [
        (["12.50"], "12.50", (True, 1.0)),
        (["Main Street "], " main street", (True, 1.0)),
        (["abcd"], "abxx", (False, 0.5)),
        (["abcd"], "axxx", (False, 0.0)),
        (["none"], "none", (False, 0.0)),
        ([""], "", (True, 0.0)),
        (["x", "abcd"], "abcx", (False, 0.75)),
    ],
)
def test_the_borders_are_those_of_the_competition(
    answers: list[str], written: str, expected: tuple[bool, float]
) -> None:
    assert (is_exact(answers, written), anls(answers, written)) == expected


def test_the_counts_of_parts_add_up_to_those_of_the_whole() -> None:
    found = pairs(300)
    answers, said = [each for each, _ in found], [text for _, text in found]
    whole = count_answers(answers, said)
    parts = [count_answers(answers[i::7], said[i::7]) for i in range(7)]
    assert [sum(column) for column in zip(*parts, strict=True)] == whole
    counts = torch.tensor([0, 1, 0, len(found), *whole])
    mean = sum(by_definition(*pair)[1] for pair in found) / len(found)
    assert metrics(counts)["anls"] == pytest.approx(mean, abs=2**-32)
