"""A table has the same cells in every format and compression; what is wrong has its place."""

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scaling_fl.learning.tables.records import (
    columns_of,
    read_records,
    table_digest,
)
from scaling_fl.learning.text.labelled import DataError

ROWS: list[dict[str, Any]] = [
    {"id": 1, "text": 'a "quoted", text', "ward": "Łódź", "stars": "good"},
    {"id": 2, "text": "two\nlines; and | more", "ward": "7", "stars": "bad"},
]


def delimited(delimiter: str, quoting: Literal[0, 1] = csv.QUOTE_MINIMAL) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(ROWS[0]), delimiter=delimiter, quoting=quoting)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return bytes(sink.getvalue())


FORMATS: dict[str, tuple[str, bytes]] = {
    "comma": ("a.csv", delimited(",")),
    "bom": ("a.csv", b"\xef\xbb\xbf" + delimited(",")),
    "semicolon": ("a.CSV", delimited(";")),
    "quoted": ("a.csv", delimited(",", csv.QUOTE_ALL)),
    "quoted semicolon": ("a.csv", delimited(";", csv.QUOTE_ALL)),
    "blank lines": ("a.csv", b"\r\n\n" + delimited(",")),
    "bar": ("a.csv", delimited("|")),
    "tab": ("a.tsv", delimited("\t")),
    "list": ("a.json", json.dumps(ROWS, indent=1).encode()),
    "lines": ("a.jsonl", "\n".join(map(json.dumps, ROWS)).encode()),
    "lines of json": ("a.json", ("\r\n".join(map(json.dumps, ROWS)) + "\r\n").encode()),
    "parquet": ("a.parquet", parquet()),
}
"""By a short word: the name of a file of this kind and what is in it."""


def in_zip(content: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("inside.csv", content)
    return archive.getvalue()


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda content: content,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: bytes(pa.compress(content, codec="zstd", asbytes=True)),
    ".zip": in_zip,
}


@pytest.mark.parametrize("end", COMPRESSIONS)
@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_and_compression_gives_the_same_cells(
    tmp_path: Path, kind: str, end: str
) -> None:
    name, content = FORMATS[kind]
    path = tmp_path / f"{name}{end}"
    path.write_bytes(COMPRESSIONS[end](content))
    assert columns_of(str(path), "train") == list(ROWS[0])
    found = read_records(str(path), "train", ["text", "stars", "id", "ward"])
    for column in ("text", "stars", "ward"):
        assert list(found.cells[column]) == [row[column] for row in ROWS]
    assert list(map(str, found.cells["id"])) == ["1", "2"]
    assert len(table_digest(str(path), "train")) == 64


@pytest.fixture(scope="module")
def datasets_on_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with splits, whose labels are numbers with names, as datasets saves it."""
    import datasets

    folder = tmp_path_factory.mktemp("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    datasets.utils.disable_progress_bars()
    splits = {
        name: datasets.Dataset.from_dict({"text": texts, "label": labels}, features=features)
        for name, texts, labels in (
            ("train", ["a", "b", "c"], [1, 0, 1]),
            ("test", ["d"], [-1]),
            ("validation", ["e"], [0]),
        )
    }
    datasets.DatasetDict(splits).save_to_disk(str(folder / "all"))
    datasets.DatasetDict({"validation": splits["validation"]}).save_to_disk(str(folder / "odd"))
    splits["train"].to_parquet(str(folder / "train.parquet"))
    return folder


def test_a_data_set_on_disk_is_read_by_its_splits(datasets_on_disk: Path) -> None:
    path = str(datasets_on_disk / "all")
    assert columns_of(path, "train") == ["text", "label"]
    train = read_records(path, "train", ["text", "label"])
    assert train.cells == {"text": ["a", "b", "c"], "label": [1, 0, 1]}
    assert train.classes == {"label": ["no", "yes"]}
    assert read_records(path, "test", ["text"]).cells == {"text": ["d"]}
    one = read_records(f"{path}/validation/", "test", ["text"])
    assert one.cells == {"text": ["e"]}
    digests = {table_digest(path, "train"), table_digest(path, "test")}
    assert digests == {table_digest(f"{path}/train", "test"), table_digest(f"{path}/test", "test")}
    assert len(digests) == 2
    with pytest.raises(DataError, match=r"a split named train, and has validation; .*/validation"):
        columns_of(str(datasets_on_disk / "odd"), "train")


def test_parquet_that_datasets_wrote_keeps_the_names_of_its_labels(datasets_on_disk: Path) -> None:
    found = read_records(str(datasets_on_disk / "train.parquet"), "train", ["label"])
    assert found.classes == {"label": ["no", "yes"]}


WRONG: list[tuple[str, bytes, str]] = [
    ("a.csv", b"text,label\na,1\nb\n", r"row 3: the row must have 2 columns, .* got 1"),
    ("a.csv", b'text,label\n"a\nb",1\n\nb,1,2\n', "row 5: the row must have 2 columns"),
    ("a.csv", b'text,label\na"b,1\n"x" y,2\n', "row 3: a text with quotation marks"),
    ("a.csv", b"", "the file must have rows, and is empty"),
    ("a.csv", b"\n\n", "the file must have rows, and is empty"),
    ("a.csv", b'"text"x,"label"\n', "row 1: a text with quotation marks"),
    ("a.csv", b"text,label,text\na,1,b\n", "the column 'text' must be there once, got 2"),
    ("a.csv", b"review,label\na,1\n", "must have the column 'text', and has review, label"),
    ("a.csv", "text,label\na,1\n".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
    ("a.csv", parquet(), "must be a table in UTF-8, and is Parquet"),
    ("a.csv.gz", b"text,label\na,1\n", "must be gzip by its name, and is text"),
    ("a.csv.zst", COMPRESSIONS[".zst"](b"text,label\n" + b"abc,1\n" * 99)[:-3], "must be readable"),
    ("a.parquet", b"text,label\na,1\n", "must be Parquet, and is text"),
    ("a.parquet", b"PAR1", "must be readable"),
    ("a.json", b'[{"text": "a"}, 3]', r"record 2: a record must be an object .* got 3"),
    ("a.json", b'[{"text": "a"}', "must be JSON"),
    ("a.jsonl", b'{"text": "a"}\n\n{"text": }\n', "row 3: the file must be JSON"),
    ("a.jsonl", b"\n", "must have the column 'text'"),
    ("a.xlsx", b"PK", "name ends in .csv, .tsv, .json, .jsonl, .ndjson, .parquet"),
    ("a", b"text,label\na,1\n", "name ends in .csv"),
]


@pytest.mark.parametrize(("name", "content", "sentence"), WRONG)
def test_what_is_wrong_is_told_with_its_place(
    tmp_path: Path, name: str, content: bytes, sentence: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=sentence) as error:
        read_records(str(path), "train", ["text", "label"])
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_a_record_may_leave_out_what_others_have(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n\n{"label": 2}\n')
    assert columns_of(str(path), "train") == ["text", "label"]
    found = read_records(str(path), "train", ["text", "label"])
    assert found.cells == {"text": ["a", None], "label": [None, 2]}
    assert found.place(1, "text") == f"{path}, row 3, column 'text'"
