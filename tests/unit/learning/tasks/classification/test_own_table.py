"""A table of one's own: its labels and clients are found, kept, and told where they do not fit."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaling_fl.composition.tasks import make_task
from scaling_fl.config import Config, read_config
from scaling_fl.learning.tasks.classification.own_table import TableClassification
from scaling_fl.learning.text.labelled import DataError

Row = dict[str, Any]


def write(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def rows(*labels: Any, **more: Any) -> list[Row]:
    return [{"text": f"text {n}", "label": label, **more} for n, label in enumerate(labels)]


def configure(folder: Path, train: list[Row], test: list[Row] | None, **changes: Any) -> Config:
    """Write the tables and choose their columns; what is in ``changes`` may choose others."""
    data = {"text": "text", "label": "label", "cache_dir": str(folder / "cache")}
    settings: dict[str, Any] = {
        "task_name": "table",
        "model": "tiny",
        "max_seq_len": 32,
        "train_path": str(write(folder / "train.jsonl", train)),
        "test_path": test and str(write(folder / "test.jsonl", test)),
        **changes,
        "data": data | changes.get("data", {}),
    }
    return read_config(settings)


def make(folder: Path, train: list[Row], test: list[Row] | None, **changes: Any) -> Any:
    task = make_task(configure(folder, train, test, **changes))
    assert isinstance(task, TableClassification)
    return task


LABELS: list[tuple[list[Any], list[str]]] = [
    (["b", "a", "b", " a"], ["a", "b"]),
    ([10, 9, 9, 10], ["9", "10"]),
    ([1.0, 0.5, 1.0, 0.5], ["0.5", "1"]),
    ([True, False, True], ["False", "True"]),
    (["10", "9", "x", "9"], ["10", "9", "x"]),
    (["nan", "1", "2"], ["1", "2", "nan"]),
]


@pytest.mark.parametrize(("given", "names"), LABELS)
def test_labels_are_found_and_sorted(tmp_path: Path, given: list[Any], names: list[str]) -> None:
    task = make(tmp_path, rows(*given), rows(*given[:2]))
    assert task.meaning == {"labels": names}
    strings = [names[index] for index in task.load_examples("train").labels]
    assert [
        float(s) if isinstance(g, float) else s for s, g in zip(strings, given, strict=True)
    ] == [g if isinstance(g, float) else str(g).strip() for g in given]
    (tmp_path / "train.jsonl").touch()
    again = make_task(configure(tmp_path, rows(*given), rows(*given[:2])))
    assert again.load_examples("train").key == task.load_examples("train").key


def test_a_table_is_known_by_the_digest_that_older_jobs_have_of_it(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("text,label,who\na,x,1\nb,y,2\nc,x,1\n")
    data = {"text": "text", "label": "label", "test_share": 0.5, "cache_dir": str(tmp_path)}
    chosen = {"task_name": "table", "model": "tiny", "max_seq_len": 8, "data_seed": 3}
    column = {"num_clients": 2, "partition": {"kind": "column", "column": "who"}}
    task = make_task(read_config({**chosen, **column, "train_path": str(table), "data": data}))
    assert isinstance(task, TableClassification)
    source = task.corpus.source_digest("train", str(table))
    assert source == "787d4ddeb094260487209b77b38da29963d9d44acaa88c41c15b77ed9f01e3b0"
    key = task.load_examples("train").key
    assert key == "3909479aea3cfafe828054849a4b239f2e36f41aad7e11ba659e9f75b6b86d9c"


def test_labels_that_are_given_keep_their_order_and_need_not_occur(tmp_path: Path) -> None:
    task = make(tmp_path, rows("a", "b"), rows("c"), data={"labels": "c,b,a"})
    assert task.meaning == {"labels": ["c", "b", "a"]}
    assert task.load_examples("train").labels.tolist() == [2, 1]
    assert task.load_examples("test").labels.tolist() == [0]


def test_labels_that_a_data_set_declares_keep_its_order(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    names = ["never", "yes", "no"]
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
    table = datasets.Dataset.from_dict(
        {"text": ["a", "b", "c"], "label": [2, 1, 1]}, features=datasets.Features(features)
    )
    table.to_parquet(str(tmp_path / "declared.parquet"))
    place = str(tmp_path / "declared.parquet")
    task = make(tmp_path, [], rows("yes", "never"), train_path=place)
    assert task.meaning == {"labels": names}
    assert task.load_examples("train").labels.tolist() == [2, 1, 1]
    assert task.load_examples("test").labels.tolist() == [1, 0]


def test_several_columns_are_joined_and_gaps_left_out(tmp_path: Path) -> None:
    train = [
        {"title": "one", "text": "two", "age": 3.0, "label": 0},
        {"title": None, "text": "four", "age": float("nan"), "label": 1},
    ]
    task = make(tmp_path, train, train, data={"text": "title,text,age"})
    assert task.load_texts("train").texts == ["one two 3", "four"]


WRONG: list[tuple[list[Row], list[Row], str]] = [
    (
        rows("a", "b"),
        rows("a", "c", "c", "d"),
        r"row 2, column 'label': a label must .* learns \(a, b\), got 'c' \(2x\), 'd' \(1x\)",
    ),
    (
        rows("a", "b", None, ""),
        rows("a"),
        r"row 3, column 'label': the label must not be missing \(the first of 2 such rows\)",
    ),
    (
        [*rows("a", "b"), {"text": " ", "label": "a"}],
        rows("a"),
        "row 3, column 'text': the text must not be missing;",
    ),
    (rows("a", "a"), rows("a"), "two labels or more, got 'a' in every row"),
    (
        rows(*range(30)),
        rows(1),
        "more than once, got 30 different ones in 30 rows, such as '0'",
    ),
    (
        [*rows("a", "b"), {"text": ["x"], "label": "a"}],
        rows("a"),
        "row 3, column 'text': a cell must be a text or a number, got list",
    ),
    (
        [*rows("a", "b"), {"text": "\ud800", "label": "a"}],
        rows("a"),
        "row 3, column 'text': the file must be UTF-8",
    ),
]


@pytest.mark.parametrize(("train", "test", "sentence"), WRONG)
def test_a_row_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, train: list[Row], test: list[Row], sentence: str
) -> None:
    task = make(tmp_path, train, test)
    with pytest.raises(DataError, match=sentence) as error:
        _ = [task.load_examples(split) for split in ("train", "test")]
    assert "\n" not in str(error.value)


def test_a_share_is_held_out_by_label_and_leaves_every_client_a_row(tmp_path: Path) -> None:
    train = [
        {"text": f"t{n}", "label": "rare" if n % 10 == 0 else "common", "ward": f"w{n // 4}"}
        for n in range(40)
    ] + [{"text": "alone", "label": "common", "ward": "small"}]
    changes: dict[str, Any] = {
        "data": {"test_share": 0.5},
        "partition": {"kind": "column", "column": "ward"},
    }
    task = make(tmp_path, train, None, **changes)
    parts = {split: task.load_texts(split) for split in ("train", "test")}
    both = [text for part in parts.values() for text in part.texts]
    assert sorted(both) == sorted(row["text"] for row in train)
    assert {split: Counter(part.labels.tolist()) for split, part in parts.items()} == {
        "train": {0: 19, 1: 2},
        "test": {0: 18, 1: 2},
    }
    assert task.client_names() == sorted({row["ward"] for row in train})
    assert set(parts["train"].owners) == set(range(11))
    assert (task.load_examples("test").owners >= 0).all()
    again = make(tmp_path, train, None, **changes)
    assert again.load_texts("test").texts == parts["test"].texts
    other = make(tmp_path, train, None, data_seed=1, **changes)
    assert other.load_texts("test").texts != parts["test"].texts
    assert other.load_examples("test").key != task.load_examples("test").key


def test_a_subset_keeps_an_example_of_every_client(tmp_path: Path) -> None:
    train = [row | {"ward": ward} for ward in "abcd" for row in rows(*"xy" * 20)]
    train.append({"text": "t", "label": "x", "ward": "e"})
    task = make(
        tmp_path,
        train,
        [row | {"ward": ward} for ward in ("z", "a", None) for row in rows("x")],
        data={"max_train_examples": 5},
        partition={"kind": "column", "column": "ward"},
    )
    assert sorted(task.load_texts("train").owners) == [0, 1, 2, 3, 4]
    assert (task.load_examples("test").owners < 0).sum() == 2


def test_what_decides_the_examples_changes_their_key(tmp_path: Path) -> None:
    train = [row | {"other": "x", "ward": ward} for ward in "ab" for row in rows("a", "b")]
    changes: list[dict[str, Any]] = [
        {},
        {"data": {"text": "other"}},
        {"data": {"text_pair": "other"}},
        {"data": {"label": "ward"}},
        {"data": {"labels": "b,a"}},
        {"partition": {"kind": "column", "column": "ward"}},
    ]
    keys = [make(tmp_path, train, train, **change).load_examples("train").key for change in changes]
    assert len(set(keys)) == len(keys)


def test_labels_of_a_saved_state_need_no_training_table(tmp_path: Path) -> None:
    config = configure(tmp_path, rows("a", "b"), rows("b"))
    Path(str(config.train_path)).unlink()
    task = make_task(config, labels=["a", "b", "c"])
    assert task.meaning == {"labels": ["a", "b", "c"]}
    assert np.array_equal(task.load_examples("test").strata, [1])
