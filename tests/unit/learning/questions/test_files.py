"""Files of questions are read as they were published, and what is wrong in one is named."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from scaling_fl.learning.questions.files import read_questions
from scaling_fl.learning.questions.question import MultipleChoice
from scaling_fl.learning.text.labelled import DataError

SUN = {"question": "What is hot?", "choices": ["Ice", "The sun"], "answer": "B"}


def write(folder: Path, rows: list[dict[str, Any]], name: str = "q.jsonl") -> str:
    path = folder / name
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        lists = [
            {k: json.dumps(v) if isinstance(v, list) else v for k, v in r.items()} for r in rows
        ]
        pd.DataFrame(lists).to_csv(path, index=False)
    return str(path)


@pytest.mark.parametrize("name", ["q.jsonl", "q.json", "q.parquet", "q.csv"])
def test_every_format_holds_the_same_questions(tmp_path: Path, name: str) -> None:
    row = {**SUN, "context": "Two things.", "subject": "physics", "instruction": "Choose."}
    assert read_questions(write(tmp_path, [row], name), "plain") == [
        MultipleChoice(
            text="What is hot?",
            choices=("Ice", "The sun"),
            answer=1,
            context="Two things.",
            subject="physics",
            instruction="Choose.",
        )
    ]


@pytest.mark.parametrize("answer", ["B", "b", 1, "1", "The sun"])
def test_an_answer_is_a_letter_a_number_from_0_or_a_text(tmp_path: Path, answer: Any) -> None:
    (question,) = read_questions(write(tmp_path, [{**SUN, "answer": answer}]), "plain")
    assert question.answer == 1


@pytest.mark.parametrize(
    ("layout", "row", "text", "choices", "gold"),
    [
        (
            "mmlu",
            {"input": "Q", "A": "w", "B": "x", "C": "y", "D": "z", "target": "C"},
            "Q",
            ("w", "x", "y", "z"),
            "C",
        ),
        (
            "medmcqa",
            {"question": "Q", "opa": "w", "opb": "x", "opc": "y", "opd": "z", "cop": 0},
            "Q",
            ("w", "x", "y", "z"),
            "A",
        ),
        (
            "careqa",
            {"question": "Q", "op1": "w", "op2": "x", "op3": "y", "op4": "z", "cop": 1},
            "Q",
            ("w", "x", "y", "z"),
            "A",
        ),
        (
            "medqa",
            {
                "question": "Q",
                "answer": "x",
                "answer_idx": "B",
                "options": [{"key": "A", "value": "w"}, {"key": "B", "value": "x"}],
            },
            "Q",
            ("w", "x"),
            "B",
        ),
        (
            "medqa",
            {"question": "Q", "answer_idx": "B", "options": {"A": "w", "B": "x"}},
            "Q",
            ("w", "x"),
            "B",
        ),
        (
            "pubmedqa",
            {"QUESTION": "Q", "CONTEXTS": ["One.", "Two."], "final_decision": "maybe"},
            "Q",
            ("yes", "no", "maybe"),
            "maybe",
        ),
        ("fpb", {"sentence": "S", "label": 2}, "S", None, "positive"),
        ("tfns", {"text": "S", "label": 2}, "S", None, "neutral"),
        (
            "fiqa",
            {"sentence": "S", "sentiment_score": 0.1, "format": "post"},
            "S",
            None,
            "positive",
        ),
        (
            "fiqa",
            {"sentence": "S", "sentiment_score": -0.1, "format": "headline"},
            "S",
            None,
            "neutral",
        ),
    ],
)
@pytest.mark.parametrize("name", ["q.jsonl", "q.parquet"])
def test_published_layouts(
    tmp_path: Path,
    layout: str,
    row: dict[str, Any],
    text: str,
    choices: tuple[str, ...] | None,
    gold: str,
    name: str,
) -> None:
    (question,) = read_questions(write(tmp_path, [row], name), layout)
    assert (question.text, question.gold) == (text, gold)
    assert question.choices == (choices or ("negative", "neutral", "positive"))


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        (
            {"answer": "E"},
            "row 2, column 'answer': the cell must name one of the 2 choices, got 'E'",
        ),
        ({"answer": 2}, "must name one of the 2 choices, got 2"),
        ({"answer": True}, "must name one of the 2 choices, got True"),
        ({"answer": None}, "must name one of the 2 choices, got None"),
        ({"choices": ["B", "A"]}, "must name one choice by its letter, got 'B' for A and B"),
        ({"choices": ["one"]}, "column 'choices': the cell must hold 2 to 26 texts, got 1"),
        ({"choices": "one, two"}, "must hold a list as JSON, got 'one, two'"),
        ({"choices": ["one", None]}, "column 'choices': the cell must hold a text, got None"),
        ({"question": " "}, "column 'question': the cell must hold a text, got ' '"),
        ({"question": ["x"]}, "column 'question': the cell must hold a text, got ['x']"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, changes: dict[str, Any], rule: str) -> None:
    path = write(tmp_path, [SUN, {**SUN, **changes}])
    with pytest.raises(DataError) as error:
        read_questions(path, "plain")
    assert rule in str(error.value)
    assert str(error.value).startswith(path)


def test_a_file_of_another_layout_is_told_its_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must have the column 'input', and has question, choices"):
        read_questions(write(tmp_path, [SUN]), "mmlu")


def test_a_subset_is_random_and_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, [{**SUN, "question": f"{number:03}?"} for number in range(100)])
    first = [q.text for q in read_questions(path, "plain", max_questions=20, seed=1)]
    other = [q.text for q in read_questions(path, "plain", max_questions=20, seed=2)]
    assert first == sorted(set(first))
    assert len(first) == len(other) == 20
    assert first != other
    assert len(read_questions(path, "plain", max_questions=200)) == 100


def test_the_prompt_lists_the_choices_only_where_a_letter_is_the_answer(tmp_path: Path) -> None:
    path = write(tmp_path, [{**SUN, "context": "Two things.", "instruction": "Choose."}])
    (lettered,), (cloze,) = read_questions(path, "plain"), read_questions(path, "cloze")
    assert lettered.prompt == ("Choose.\n\nTwo things.\nWhat is hot?\nA. Ice\nB. The sun\nAnswer:")
    assert cloze.prompt == "Choose.\n\nTwo things.\nWhat is hot?\nAnswer:"
    assert (lettered.answers, cloze.answers) == (("A", "B"), ("Ice", "The sun"))
