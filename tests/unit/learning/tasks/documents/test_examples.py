"""Questions about pages as the model reads them, and their way from the competition's files."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from scaling_fl.commands.convert_docvqa import ConversionRequest, convert
from scaling_fl.composition.tasks import make_task
from scaling_fl.config import read_config
from scaling_fl.core.errors import UserError
from scaling_fl.learning.tasks.documents.encoding import read_back
from tests.invoices import draw_invoice, records_of, write_invoices, write_providers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("invoices")
    write_invoices(folder, "train", range(12))
    return folder


def task(folder: Path, file: str = "train.parquet", **changes: Any) -> Any:
    given = {
        "task_name": "docvqa",
        "model": "tiny",
        "train_path": str(folder / file),
        "test_path": str(folder / file) if "val" in file else None,
        "max_seq_len": 96,
        "partition": {"kind": "column", "column": "client"},
        "data": {"cache_dir": str(folder / "cache"), "test_share": 0.25},
    }
    return make_task(read_config(given | changes))


def test_a_page_is_read_word_by_word_with_its_boxes(folder: Path) -> None:
    made = task(folder, data={"cache_dir": str(folder / "cache"), "test_share": 0.25})
    examples = made.load_examples("train")
    row = int(examples.rows[0])
    invoice = draw_invoice(row, row % 4)
    batch = examples.batch(np.array([0]))
    ids, boxes = batch.tensors["input_ids"][0].tolist(), batch.tensors["boxes"][0].tolist()
    text = made.tokenizer.decode(ids)
    question = text.partition("?")[0].removeprefix("question: ")
    prompt = f"question: {question}?  context: "
    assert text == prompt + "".join(invoice.words).lower() + "[SEP]"
    places: list[list[int]] = [[0, 0, 1000, 1000]] * len(prompt)
    for word, box in zip(invoice.words, invoice.boxes, strict=True):
        places += [[int(side * 1000) for side in box]] * len(word)
    assert boxes == [*places, [0, 0, 0, 0]]
    field = question.rpartition(" ")[2]
    assert read_back(batch.tensors["answers"][0].numpy()) == [invoice.values[field]]
    labels = batch.tensors["labels"][0].tolist()
    assert made.tokenizer.decode(labels) == invoice.values[field].lower() + "[SEP]"
    page = np.asarray(invoice.page.resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(batch.tensors["pixels"][0].numpy(), page)


def test_what_is_too_long_loses_its_end_and_batches_pad_to_the_longest(folder: Path) -> None:
    cut = task(folder, max_seq_len=40).load_examples("train")
    assert set(cut.lengths) == {40}
    assert cut.num_cut == len(cut)
    examples = task(folder).load_examples("train")
    assert examples.num_cut == 0
    batch = examples.batch(np.arange(len(examples)))
    mask, boxes = batch.tensors["attention_mask"], batch.tensors["boxes"]
    assert mask.sum(1).tolist() == examples.lengths.tolist()
    assert mask.shape[1] == examples.lengths.max()
    assert int(boxes[mask == 0].abs().sum()) == 0


def test_clients_and_providers_are_those_of_the_table(folder: Path) -> None:
    made = task(folder)
    train, test = (made.load_examples(split) for split in ("train", "test"))
    assert made.client_names() == ["client_0", "client_1"]
    assert sorted([*train.rows, *test.rows]) == list(range(12))
    assert made.owners(train).tolist() == [row % 4 // 2 for row in train.rows]
    assert train.names("provider") == [f"vendor_{row % 4}" for row in train.rows]


def save_records(path: Path, records: list[Any]) -> Path:
    array = np.empty(len(records), dtype=object)
    array[:] = records
    np.save(path, array)
    return path


def test_the_files_of_the_competition_become_a_table(tmp_path: Path) -> None:
    records = records_of([0, 1, 2, 3])
    records[3] |= {"ocr_tokens": [], "ocr_normalized_boxes": np.empty((0, 4))}
    file = save_records(tmp_path / "imdb_train_client_0.npy", [{"version": 1}, *records])
    write_providers(tmp_path / "data_points.json")
    for number in range(4):
        draw_invoice(number, number % 2).page.save(tmp_path / f"page_{number}.jpg")
    out = tmp_path / "train.parquet"
    request = ConversionRequest(
        files=[file], out=out, images=tmp_path, providers=tmp_path / "data_points.json"
    )
    assert convert(request).endswith("4 questions of 1 clients about 4 pages")
    rows = pq.read_table(out).to_pylist()
    assert [row["provider"] for row in rows] == ["vendor_0", "vendor_1"] * 2
    assert [row["image"] for row in rows] == [f"page_{number}.jpg" for number in range(4)]
    assert rows[0]["words"] == records[0]["ocr_tokens"]
    np.testing.assert_allclose(rows[0]["boxes"], records[0]["ocr_normalized_boxes"], atol=1e-6)
    examples = task(tmp_path, data={"cache_dir": str(tmp_path / "c"), "test_share": 0.25})
    assert len(examples.load_examples("train")) == 3


class Runs:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch ran",)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def with_a_long_header(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:8] + (60000).to_bytes(2, "little") + b" " * 60000 + content[10:])


@pytest.mark.parametrize(
    ("record", "damage", "message"),
    [
        (Runs(), None, "plain values and NumPy's arrays alone"),
        ({"question": Runs()}, None, "plain values and NumPy's arrays alone"),
        ({"a": 1}, cut_short, "plain values and NumPy's arrays alone and be whole"),
        ({"a": 1}, with_a_long_header, "must be a row of records that NumPy saved"),
        ({"a": 1}, None, "record 1: a record must have question"),
        (7, None, "record 1: this must be a record with names"),
    ],
)
def test_hostile_and_damaged_files_are_refused_in_one_line(
    record: Any, damage: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = save_records(tmp_path / "imdb_val.npy", [{}, record])
    if damage:
        damage(file)
    with pytest.raises(UserError, match=message):
        convert(ConversionRequest(files=[file], out=tmp_path / "val.parquet"))
    assert list(tmp_path.iterdir()) == [file]


def test_the_script_ends_with_one_line_and_the_code_of_wrong_files(tmp_path: Path) -> None:
    file = save_records(tmp_path / "imdb_val.npy", [{}, Runs()])
    script = Path(__file__).parents[5] / "scripts" / "convert_docvqa.py"
    command = [sys.executable, str(script), str(file), "--out", str(tmp_path / "val.parquet")]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    *_, last = [line for line in found.stderr.splitlines() if line.startswith("Error: ")]
    assert found.returncode == 2
    assert "a pickle must hold plain values" in last
    assert list(tmp_path.iterdir()) == [file]
