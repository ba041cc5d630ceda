"""A table's columns are checked, with all else that is wrong, before anything is read or loaded."""

from pathlib import Path
from typing import Any

import pytest

from scaling_fl.config import read_config
from scaling_fl.core.errors import UserError
from scaling_fl.learning.tables.records import columns_of
from tests.unit.config.settings import PRIVATE, merged, only_problem, problems


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("id,text,stars,ward\n1,x,good,N\n")
    Path("twice.csv").write_text("text,stars,text\nx,good,y\n")
    Path("b.csv").write_text("text,score\nx,good\n")
    chosen = {"data": {"text": "text", "label": "stars"}}
    return {"task_name": "table", "train_path": "a.csv", "test_path": "s3://b/t.csv", **chosen}


def of_a(path: str, split: str) -> list[str]:
    return columns_of("a.csv" if "://" in path else path, "train")


HAS = "a.csv, which has the columns id, text, stars, ward"
SENTENCES: list[tuple[dict[str, Any], str]] = [
    (
        {"data": {"text": None}},
        f"data.text must name the column of the texts in {HAS}, got None; give data.text=text.",
    ),
    (
        {"data": {"label": None}},
        f"data.label must name the column of the labels in {HAS}, got None; "
        "give data.label=COLUMN.",
    ),
    (
        {"partition": {"kind": "column"}},
        f"partition.column must name the column of the clients in {HAS}, got None; "
        "give partition.column=COLUMN.",
    ),
    (
        {"partition": {"kind": "column", "column": "wards"}},
        f"partition.column must name a column of {HAS}, got 'wards'; use partition.column=ward.",
    ),
    (
        {"data": {"text": ["text", "xyzzy"]}},
        f"data.text must name a column of {HAS}, got 'xyzzy'; choose one of them.",
    ),
    (
        {"train_path": "twice.csv"},
        "data.text must name a column that is once in twice.csv, which has the columns text, "
        "stars, text, got 'text'; rename the others of that name.",
    ),
    (
        {"data": {"text": "text,stars"}},
        "data.label must not be a column of the text as well, from which the model would read it, "
        "got 'stars'; drop it from data.text and data.text_pair.",
    ),
    (
        {"data": {"text_pair": ["text", "id"]}},
        "data.text_pair must be other columns than data.text, got 'text'; drop them from one of "
        "both.",
    ),
    (
        {"test_path": "b.csv"},
        "test_path must have the columns of the training data, and lacks stars, got 'b.csv', which "
        "has the columns text, score; rename its columns or give another table.",
    ),
    (
        {"test_path": None},
        "test_path must be given for table unless data.test_share is, got None; give test_path, or "
        "hold out a part of the training rows by data.test_share=0.2.",
    ),
    (
        {"test_path": "a.csv"},
        "test_path must be another file than train_path, got 'a.csv'; give the test data, or "
        "data.test_share=0.2 instead of test_path.",
    ),
    (
        {**PRIVATE, "privacy": {"clip": 1.0, "noise_multiplier": 1.0}},
        "data.labels must be given for a table or a folder with noise, because every checkpoint "
        "would tell the labels that the data was found to have, got None with privacy.clip=1.0; "
        "list all labels, such as data.labels=no,yes, or drop the noise.",
    ),
    (
        {
            "test_path": None,
            **PRIVATE,
            "data": {"labels": "1,2,3,4,5", "test_share": 0.2},
            "privacy": {"clip": 1.0, "noise_multiplier": 1.0},
        },
        "data.test_share must be left alone with noise, because metrics of test data that is the "
        "clients' own are not covered by epsilon, got 0.2 with privacy.clip=1.0; give test_path, "
        "of data that needs no protection, or drop the noise.",
    ),
]


@pytest.mark.parametrize(("changes", "sentence"), SENTENCES)
def test_what_is_wrong_with_columns_is_one_sentence(
    settings: dict[str, Any], changes: dict[str, Any], sentence: str
) -> None:
    assert problems(merged(settings, changes), columns_of=of_a) == [sentence]


def test_sound_columns_are_accepted_and_all_problems_come_together(
    settings: dict[str, Any],
) -> None:
    assert problems(settings, columns_of=of_a) == []
    held_out = merged(settings, {"test_path": None, "data": {"test_share": 0.2}})
    assert problems(held_out, columns_of=of_a) == []
    wrong = merged(settings, {"test_path": None, "data": {"text": None}, "seeds": 1})
    found = problems(wrong, columns_of=of_a)
    assert [problem.split()[0] for problem in found] == ["seeds", "test_path", "data.text"]
    assert HAS in found[-1]


def test_natural_clients_are_those_of_a_table() -> None:
    problem = only_problem({"partition": {"kind": "column", "column": "ward"}})
    assert problem.startswith("partition.kind must be another kind unless task_name is table")


def test_the_number_of_natural_clients_is_not_that_of_the_sites(settings: dict[str, Any]) -> None:
    changes = {"partition": {"kind": "column", "column": "ward"}, "clients_per_round": 3}
    assert problems(merged(settings, changes), columns_of=of_a) == []
    assert problems(merged(settings, changes, {"num_clients": 2}), columns_of=of_a) != []


def test_a_table_that_cannot_be_read_is_told_before_anything_starts(
    settings: dict[str, Any],
) -> None:
    Path("a.csv").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"^a\.csv: this file must be a table in UTF-8"):
        read_config(settings, columns_of=of_a)


def test_a_text_of_agnews_is_one_of_its_three(settings: dict[str, Any]) -> None:
    changes = {"task_name": "agnews", "data": {"text": "Title", "label": None}}
    assert problems(merged(settings, changes)) == [
        "data.text must be description, title or both, got 'Title' with task_name=agnews; use one "
        "of them."
    ]


def test_settings_that_are_left_alone_are_no_part_of_the_identity(settings: dict[str, Any]) -> None:
    new = {"data.label", "data.labels", "data.text_pair", "data.test_share", "partition.column"}
    plain = read_config({"task_name": "20newsgroups_topics"}).identity()
    assert not new & plain.keys()
    assert plain["data.text"] is None
    agnews = merged(settings, {"task_name": "agnews", "data": {"text": "title", "label": None}})
    assert read_config(agnews).identity()["data.text"] == "title"
    assert read_config(settings).identity()["data.label"] == "stars"
