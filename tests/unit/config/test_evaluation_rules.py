"""Files of questions are checked, with all else that is wrong, before anything loads."""

from pathlib import Path
from typing import Any

import pytest

from scaling_fl.config import read_config
from tests.unit.config.settings import merged, problems

GIVEN: dict[str, Any] = {"task_name": "generalnlp", "model": "tiny"}


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "b.jsonl", "old/a.csv"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("")


def test_files_are_named_by_what_is_before_their_first_point() -> None:
    found = read_config({**GIVEN, "evaluation": {"questions": "a.jsonl,s3://b/mmlu.v2.csv.gz"}})
    assert found.evaluation.files == {"a": "a.jsonl", "mmlu": "s3://b/mmlu.v2.csv.gz"}


@pytest.mark.parametrize(
    ("evaluation", "sentence"),
    [
        (
            {"questions": "a.jsonl,c.jsonl"},
            "evaluation.questions must name existing files or folders, got 'c.jsonl'; correct the "
            "path (looked in ",
        ),
        (
            {"questions": ["a.jsonl", "b.jsonl", "old/a.csv"]},
            "evaluation.questions must name files of different names, by which their metrics are "
            "named, got 2 named a; rename one of them.",
        ),
        (
            {"questions": "a.jsonl", "rule": "generation", "layout": "cloze"},
            "evaluation.rule must be likelihood for choices without letters, which FlowerTune's "
            "rule does not know, got 'generation' with evaluation.layout=cloze; set "
            "evaluation.rule=likelihood or evaluation.layout=plain.",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(evaluation: dict[str, Any], sentence: str) -> None:
    (problem,) = problems({**GIVEN, "evaluation": evaluation})
    assert problem.startswith(sentence)


def test_to_ask_questions_is_no_part_of_the_identity() -> None:
    base = read_config(GIVEN)
    asked = read_config(merged(GIVEN, {"evaluation": {"questions": "a.jsonl", "max_generated": 3}}))
    assert asked.identity() == base.identity()


@pytest.mark.parametrize("name", ["validation.mmlu.accuracy", "validation.arc.accuracy_norm"])
def test_the_accuracy_on_a_file_may_end_a_run(name: str) -> None:
    assert problems({**GIVEN, "stop_when": {"metric": name, "target": 0.5}}) == []


def test_a_perplexity_falls_and_is_no_share() -> None:
    found = read_config({**GIVEN, "stop_when": {"metric": "validation.perplexity", "target": 9}})
    assert found.stop_when.is_of_loss


@pytest.mark.parametrize("name", ["validation.f1.sport", "validation.accuracy.mmlu", "accuracy"])
def test_other_metrics_end_none(name: str) -> None:
    (problem,) = problems({**GIVEN, "stop_when": {"metric": name, "patience": 1}})
    assert problem.startswith("stop_when.metric must be one of validation.accuracy, ")
    assert "or validation.NAME.accuracy of a file of questions, got" in problem
