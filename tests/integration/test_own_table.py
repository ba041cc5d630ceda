"""Runs on a table of one's own: its labels and clients are in all that a run leaves."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from one_process import QuickRun, outcome
from transformers import AutoModelForSequenceClassification

from scaling_fl.commands import evaluate, export
from scaling_fl.core.errors import UserError
from scaling_fl.runtime.tracking.run_files import tables

WARDS = {"North": 20, "10": 12, "9": 4}
ANSWERS = {"entailment": "yes indeed", "neutral": "who knows", "contradiction": "not at all"}


def write_table(path: Path, *, seed: int, sizes: dict[str, int]) -> list[dict[str, Any]]:
    """Write pairs of texts, of which the second one tells the label."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for ward, size in sizes.items():
        for _ in range(size):
            label = rng.choice(sorted(ANSWERS))
            rows.append({"ward": ward, "premise": f"case {rng.randint(1, 9)}"})
            rows[-1] |= {"hypothesis": ANSWERS[label], "verdict": label}
    rng.shuffle(rows)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return rows


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    write_table(tmp_path / "train.parquet", seed=1, sizes=WARDS)
    write_table(tmp_path / "test.parquet", seed=2, sizes={"North": 10, "South": 2})
    return {
        "task_name": "table",
        "train_path": str(tmp_path / "train.parquet"),
        "test_path": str(tmp_path / "test.parquet"),
        "num_clients": None,
        "shared": tmp_path,
        "data": {
            "text": "premise",
            "text_pair": "hypothesis",
            "label": "verdict",
            "cache_dir": str(tmp_path / "cache"),
        },
        "partition": {"kind": "column", "column": "ward"},
    }


def test_a_run_has_one_client_for_each_value_and_goes_on_as_if_whole(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    whole = QuickRun(tmp_path / "whole", **settings).start_here()
    record = whole.record
    assert record.partition is not None
    assert record.partition["client_names"] == ["10", "9", "North"]
    assert [sum(row) for row in record.partition["histograms"]] == [12, 4, 20]
    assert record.partition["label_names"] == sorted(ANSWERS)
    assert [(row["name"], row["num_examples"]) for row in record.clients[:3]] == [
        ("10", 12),
        ("9", 4),
        ("North", 20),
    ]
    written = tables()["clients.csv"].render(record.clients).decode().splitlines()
    assert [row["name"] for row in csv.DictReader(written)] == ["10", "9", "North"] * 3
    QuickRun(tmp_path / "halves", **settings).start_here(stop_after=1)
    on_two = QuickRun(tmp_path / "halves", **settings | {"site_ids": [0, 1]}).start_here()
    assert outcome(on_two) == outcome(whole)


def test_a_wrong_number_of_clients_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="or be the 3 different values of column ward, got 4"):
        QuickRun(tmp_path / "run", **settings | {"num_clients": 4}).start_here()
    with pytest.raises(UserError, match="min_clients must not exceed"):
        QuickRun(tmp_path / "few", **settings | {"min_clients": 4}).start_here()


def test_what_a_run_saved_needs_its_training_table_no_more(
    tmp_path: Path, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = QuickRun(tmp_path / "run", **settings | {"num_rounds": 2}).start_here()
    (tmp_path / "train.parquet").unlink()
    place = str(run.checkpoints / "round-000002")
    assert evaluate.main({"checkpoint": place, "json": True}) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["num_examples"] == 12
    series = run.record.metrics["validation.accuracy"]["values"]
    assert found["metrics"]["validation.accuracy"] == series[-1]

    other = tmp_path / "other.csv"
    other.write_text("premise,hypothesis,verdict\ncase 1,who knows,neutral\n")
    assert evaluate.main({"checkpoint": place, "test_path": str(other), "json": True}) == 0
    assert json.loads(capsys.readouterr().out)["num_examples"] == 1
    other.write_text("a;b;c\ncase 1;who knows;neutral\n")
    columns = {"text": "a", "text_pair": "b", "label": "c"}
    options = {"checkpoint": place, "test_path": str(other), "json": True}
    assert evaluate.main(options | columns) == 0
    assert json.loads(capsys.readouterr().out)["num_examples"] == 1
    assert evaluate.main(options) == 2
    assert "the table must have the column 'premise', and has a, b, c" in capsys.readouterr().err
    other.write_text("premise,hypothesis,verdict\ncase 1,who knows,maybe\n")
    assert evaluate.main({"checkpoint": place, "test_path": str(other)}) == 2
    assert "a label must be one of those that the model learns" in capsys.readouterr().err

    assert export.main({"checkpoints": [place], "out": tmp_path / "merged"}) == 0
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    assert model.config.id2label == dict(enumerate(sorted(ANSWERS)))
    assert model.config.label2id == {name: i for i, name in enumerate(sorted(ANSWERS))}
    assert model.num_labels == 3
    assert all(torch.isfinite(weights).all() for weights in model.parameters())


def test_what_is_held_out_is_evaluated_again_to_the_bit(
    tmp_path: Path, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    data = settings["data"] | {"test_share": 0.25, "max_test_examples": 8}
    changes = settings | {"test_path": None, "num_rounds": 1, "data": data}
    run = QuickRun(tmp_path / "run", **changes).start_here()
    assert evaluate.main({"checkpoint": str(run.checkpoints), "json": True}) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["num_examples"] == 8
    reported = {
        name: series["values"][-1]
        for name, series in run.record.metrics.items()
        if name.startswith("validation.")
    }
    assert {name: found["metrics"][name] for name in reported} == reported
    test = str(tmp_path / "test.parquet")
    options = {"checkpoint": str(run.checkpoints), "test_path": test, "json": True}
    assert evaluate.main(options) == 0
    assert json.loads(capsys.readouterr().out)["num_examples"] == 12
    (tmp_path / "train.parquet").unlink()
    assert evaluate.main({"checkpoint": str(run.checkpoints)}) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith(
        "train.parquet: this file must exist, and does not; check the path, or give other test "
        "data than what was held out of it, by --test-path."
    )


def test_a_client_that_keeps_its_part_answers_its_own_rows(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    """The global model answers the rows of a ward that does not train."""
    changes = {"adapter": {"kind": "lora"}, "merge": {"method": "share_a"}, "learning_rate": 0.05}
    run = QuickRun(tmp_path / "run", **settings | changes).start_here()
    torch.set_num_threads(1)
    found = evaluate.evaluate(evaluate.EvaluationRequest(checkpoint=str(run.checkpoints)))
    last = {name: values[-1] for name, (_, values) in run.results().items()}
    assert {name: last[name] for name in found.overall} == found.overall
    north = pq.read_table(tmp_path / "test.parquet").to_pylist()
    north = [row for row in north if row["ward"] == "North"]
    pq.write_table(pa.Table.from_pylist(north), tmp_path / "north.parquet")
    request = evaluate.EvaluationRequest(
        checkpoint=str(run.checkpoints), test_path=str(tmp_path / "north.parquet")
    )
    of_client = evaluate.EvaluationRequest(**{**vars(request), "client": 2})
    assert evaluate.evaluate(request).overall == evaluate.evaluate(of_client).overall
