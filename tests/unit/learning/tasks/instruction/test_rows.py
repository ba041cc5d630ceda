"""Tables become conversations, by columns or whole; a bad row is named."""

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from scaling_fl.learning.options import Columns
from scaling_fl.learning.tasks.instruction import rows
from scaling_fl.learning.tasks.instruction.conversations import Turn
from scaling_fl.learning.tasks.instruction.rows import ColumnRule, read_conversations
from scaling_fl.learning.text.labelled import DataError

USUAL = ColumnRule()
ROW = {"instruction": "Add.", "input": "1 and 2", "output": "3"}


def table(tmp_path: Path, *records: dict[str, Any]) -> str:
    path = tmp_path / "table.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def read(path: str, rule: ColumnRule = USUAL, **columns: Any) -> list[tuple[Turn, ...]]:
    return list(read_conversations(path, "train", rule, Columns(**columns), system=None).turns)


@pytest.mark.parametrize(
    ("rule", "asked"),
    [
        (rows.GENERALNLP, "Add."),
        (rows.MEDICAL, "1 and 2"),
        (rows.INSTRUCTION_AND_INPUT, "Add. 1 and 2"),
        (ColumnRule(), "Add.\n1 and 2"),
    ],
)
def test_the_columns_of_each_task_are_those_of_upstream(
    tmp_path: Path, rule: ColumnRule, asked: str
) -> None:
    path = table(tmp_path, ROW)
    assert read(path, rule) == [(Turn("user", asked), Turn("assistant", "3"))]


def test_an_input_that_is_missing_is_left_out(tmp_path: Path) -> None:
    path = table(tmp_path, {**ROW, "input": ""}, {**ROW, "input": None})
    asked = [turns[0].content for turns in read(path, rows.INSTRUCTION_AND_INPUT)]
    assert asked == ["Add.", "Add."]


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = table(tmp_path, {"q": "Add.", "more": "1 and 2", "a": 3})
    found = read(path, instruction=("q", "more"), response="a")
    assert found == [(Turn("user", "Add.\n1 and 2"), Turn("assistant", "3"))]


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}],
        json.dumps([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]),
    ],
)
def test_whole_conversations_are_read_in_the_usual_forms(tmp_path: Path, messages: Any) -> None:
    path = table(tmp_path, {"messages": messages})
    assert read(path) == [(Turn("user", "a"), Turn("assistant", "b"))]


def test_every_form_of_file_gives_the_same_conversations(tmp_path: Path) -> None:
    said = [[Turn("user", f"a{n}"), Turn("assistant", f"b{n}")] * (1 + n) for n in range(3)]
    messages = [[{"role": t.role, "content": t.content} for t in turns] for turns in said]
    data = datasets.Dataset.from_dict({"messages": messages})
    data.to_json(str(tmp_path / "rows.jsonl"))
    data.to_parquet(str(tmp_path / "rows.parquet"))
    data.save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "rows.json").write_text(json.dumps([{"messages": found} for found in messages]))
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["messages"], *([json.dumps(found)] for found in messages)])
    for name in ("rows.jsonl", "rows.json", "rows.parquet", "rows.csv", "saved"):
        assert read(str(tmp_path / name)) == [tuple(turns) for turns in said], name


def test_a_question_that_nobody_answers_is_left_out(tmp_path: Path) -> None:
    spoken = [("user", "a"), ("assistant", "b"), ("user", "c")]
    path = table(tmp_path, {"messages": [{"role": r, "content": c} for r, c in spoken]})
    assert read(path) == [(Turn("user", "a"), Turn("assistant", "b"))]


def test_the_system_of_the_settings_yields_to_one_of_the_row(tmp_path: Path) -> None:
    own = [
        {"role": r, "content": c} for r, c in [("system", "s"), ("user", "a"), ("assistant", "b")]
    ]
    path = table(tmp_path, {"messages": own}, {"messages": own[1:]})
    found = read_conversations(path, "train", ColumnRule(), Columns(), system="Be brief.")
    assert [turns[0] for turns in found.turns] == [Turn("system", "s"), Turn("system", "Be brief.")]


def test_clients_are_those_of_a_column(tmp_path: Path) -> None:
    path = table(tmp_path, {**ROW, "who": "b"}, {**ROW, "who": "a"}, {**ROW, "who": "c"})
    names = rows.client_names_in(path, "who")
    found = read_conversations(
        path, "train", ColumnRule(), Columns(client="who"), system=None, client_names=names[:2]
    )
    assert names == ["a", "b", "c"]
    assert found.owners is not None
    assert found.owners.tolist() == [1, 0, -1]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({**ROW, "output": ""}, "row 1, column 'output': the answer must not be missing"),
        ({**ROW, "instruction": None}, "column 'instruction': the instruction must not be missing"),
        ({**ROW, "input": ["x"]}, "column 'input': a cell must be a text or a number, got list"),
        ({"x": 1}, "must have the columns of an instruction"),
        ({"messages": "no"}, "a conversation must be a list such as"),
        ({"messages": [{"role": "user", "content": "a"}]}, "must have a turn of the assistant"),
        ({"messages": [{"role": "god", "content": "a"}]}, "a turn must have a role (system, user"),
    ],
)
def test_a_row_that_is_no_conversation_is_named(
    tmp_path: Path, record: dict[str, Any], message: str
) -> None:
    path = table(tmp_path, record)
    with pytest.raises(DataError) as error:
        read(path)
    assert message in str(error.value)
