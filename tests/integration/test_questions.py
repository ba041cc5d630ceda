"""A run that asks its language model questions reports the same on one worker and on two."""

from pathlib import Path
from typing import Any

import pytest
from one_process import QuickRun, outcome

from tests.integration.conversations import conversation_settings


@pytest.fixture(scope="module")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return conversation_settings(tmp_path_factory.mktemp("conversations"))


NAMES = {
    "validation.sums.accuracy",
    "validation.words.accuracy",
    "validation.exact_match",
    "validation.rouge_l",
}


@pytest.mark.parametrize("rule", ["likelihood", "generation"])
def test_one_worker_and_two_report_the_same_answers(
    conversations: dict[str, Any], tmp_path: Path, rule: str
) -> None:
    evaluation = {**conversations["evaluation"], "rule": rule}
    changes = {**conversations, "evaluation": evaluation}
    one = QuickRun(tmp_path / "one", shared=tmp_path, **changes).start_here()
    two = QuickRun(tmp_path / "two", shared=tmp_path, site_ids=[0, 1], **changes).start_here()
    assert outcome(one, round_number=2) == outcome(two, round_number=2)
    assert one.results().keys() > NAMES
    assert all(0 <= value <= 1 for name in NAMES for value in one.results()[name][1])
    assert (one.results()["validation.sums.accuracy"][1][0] * 9) % 1 == 0


def test_questions_change_nothing_of_what_is_trained(
    conversations: dict[str, Any], tmp_path: Path
) -> None:
    asked = QuickRun(tmp_path / "asked", shared=tmp_path, **conversations).start_here()
    plain = QuickRun(
        tmp_path / "plain", shared=tmp_path, **{**conversations, "evaluation": {}}
    ).start_here()
    assert asked.digest == plain.digest
    assert asked.results().keys() - plain.results().keys() == NAMES
    assert {name: asked.results()[name] for name in plain.results()} == plain.results()


def test_what_is_cut_of_questions_is_told(conversations: dict[str, Any], tmp_path: Path) -> None:
    changes = {**conversations, "max_seq_len": 42, "num_rounds": 1}
    run = QuickRun(tmp_path / "run", shared=tmp_path, **changes).start_here()
    (note,) = (text for text in run.notes if "questions of sums" in text)
    assert "more than max_seq_len=42 tokens and lose the beginning" in note
