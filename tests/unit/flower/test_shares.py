"""The rows of a table are dealt to nodes, each to one and in turn."""

import json
from pathlib import Path

import pytest

from scaling_fl.core.errors import InputError
from scaling_fl.flower.shares import deal

ROWS = [{"text": f"row {n}, “quoted”", "label": n % 2} for n in range(7)]


def dealt(table: Path, num_nodes: int = 3) -> list[list[dict[str, object]]]:
    targets = [table.parent / f"share{n}" for n in range(num_nodes)]
    counts = deal(str(table), targets, option="--data")
    shares = [[json.loads(line) for line in path.read_text().splitlines()] for path in targets]
    assert counts == [len(share) for share in shares]
    return shares


def test_each_row_is_dealt_to_one_node_in_turn(tmp_path: Path) -> None:
    table = tmp_path / "table.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert dealt(table) == [ROWS[0::3], ROWS[1::3], ROWS[2::3]]


def test_conversations_stay_as_they_are(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": str(n)}]} for n in range(3)]
    table = tmp_path / "table.json"
    table.write_text(json.dumps(rows))
    assert dealt(table) == [[row] for row in rows]


def test_a_table_of_commas_is_dealt_too(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text('text,label\n"one, with a comma",1\ntwo,2\nthree,3\n')
    texts = [[row["text"] for row in share] for share in dealt(table)]
    assert texts == [["one, with a comma"], ["two"], ["three"]]


def test_a_table_with_too_few_rows_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("text,label\none,1\n")
    with pytest.raises(InputError, match=r"a row for each of the 3 nodes, got 1 in .*table\.csv"):
        dealt(table)


def test_a_table_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.csv"):
        dealt(tmp_path / "nowhere.csv")
