"""A file is told for what it is, whatever its name says, and only a whole one is read."""

import bz2
import csv
import gzip
import io
import json
import lzma
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling_fl.learning.tables import kinds
from scaling_fl.learning.tables.kinds import HEAD_BYTES, kind_of
from scaling_fl.learning.tables.sources import open_text
from scaling_fl.learning.tasks.classification import agnews, yelp
from scaling_fl.learning.text.labelled import DataError

TABLE = "Class Index,Title,Description\n" + "".join(f"{i % 4 + 1},t,é {i}\n" for i in range(300))
ROWS = [{"label": 0, "text": "x"}, {"label": 1, "text": "y"}]


def zipped(members: dict[str, str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return content.getvalue()


def tarred() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        member = tarfile.TarInfo("train.csv")
        member.size = len(TABLE.encode())
        archive.addfile(member, io.BytesIO(TABLE.encode()))
    return content.getvalue()


def columnar(write: Callable[[pa.Table, io.BytesIO], object]) -> bytes:
    content = io.BytesIO()
    write(pa.Table.from_pylist(ROWS), content)
    return content.getvalue()


def arrow_file(table: pa.Table, content: io.BytesIO) -> None:
    with pa.ipc.new_file(content, table.schema) as file:
        file.write_table(table)


def arrow_stream(table: pa.Table, content: io.BytesIO) -> None:
    with pa.ipc.new_stream(content, table.schema) as file:
        file.write_table(table)


def database() -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table train (label, text)")
    return connection.serialize()


def array() -> bytes:
    content = io.BytesIO()
    np.save(content, np.arange(4))
    return content.getvalue()


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
GZIPPED = gzip.compress(b"x", mtime=0)  # without the time, which a test's id would hold
OTHERS = {
    "UTF-16 text": [
        TABLE.encode("utf-16"),
        TABLE.encode("utf-16-le"),
        TABLE.encode("utf-16-be"),
        b"\xfe\xff" + TABLE.encode("utf-16-be"),
    ],
    "UTF-32 text": [TABLE.encode("utf-32")],
    "gzip": [gzip.compress(TABLE.encode())],
    "bzip2": [bz2.compress(TABLE.encode()), bz2.compress(b"")],
    "xz": [lzma.compress(TABLE.encode())],
    "a zip archive": [zipped({"train.csv": TABLE}), zipped({})],
    "an Office document": [
        zipped({"[Content_Types].xml": "<Types/>", "xl/workbook.xml": "<workbook/>"}),
        bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600),
    ],
    "a tar archive": [tarred()],
    "Parquet": [columnar(pq.write_table)],
    "Arrow": [columnar(arrow_file), columnar(arrow_stream)],
    "JSON": [
        "\n".join(json.dumps(row) for row in ROWS).encode(),
        json.dumps(ROWS, indent=2).encode(),
        b"\xef\xbb\xbf" + json.dumps({"data": ROWS}, indent=2).encode(),
    ],
    "an SQLite database": [database()],
    "a NumPy array": [array()],
    "a Python pickle": [b"\x80\x04\x95", b"\x80\x02]q\x00"],
    "an HTML page": [b"\n<!DOCTYPE html>\n<html>", b"<HTML><body>Sign in", b"<html lang=en>"],
    "XML": [b'<?xml version="1.0"?><rows/>'],
    "PDF": [b"%PDF-1.7\n"],
    "Zstandard": [b"\x28\xb5\x2f\xfd" + bytes(40)],
    "a Git LFS pointer": [POINTER.encode()],
}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param(name, content, id=f"{name} {number}")
        for name, found in OTHERS.items()
        for number, content in enumerate(found)
    ],
)
def test_a_file_of_another_kind_is_named_and_the_remedy_given(
    name: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        agnews.load("train", str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: this file must be a table in UTF-8, and is {name}")
    assert message.endswith(f"; {kind_of(content[:HEAD_BYTES]).remedy}.")
    assert "\n" not in message


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(
    header=st.sampled_from([[], [["Title", "Class Index"]], [["id", "text", "author"]]]),
    rows=st.lists(st.tuples(st.integers(1, 5).map(str), CELLS, CELLS), min_size=1, max_size=30),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig"]),
)
def test_no_table_in_utf_8_is_taken_for_something_else(
    header: list[list[str]], rows: list[tuple[str, ...]], quoting: Literal[0, 1], encoding: str
) -> None:
    content = io.StringIO()
    csv.writer(content, quoting=quoting).writerows([*header, *rows])
    assert kind_of(content.getvalue().encode(encoding)[:HEAD_BYTES]) is kinds.TEXT


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "train.csv.gz": gzip.compress,
    "train.CSV.GZ": gzip.compress,
    "train.csv.bz2": bz2.compress,
    "train.csv.xz": lzma.compress,
    "train.csv.zst": partial(pa.compress, codec="zstd", asbytes=True),
    "train.csv.lzma": partial(lzma.compress, format=lzma.FORMAT_ALONE),
}


@pytest.mark.parametrize("name", PACKED)
def test_a_packed_table_is_read_and_one_that_is_cut_short_anywhere_is_not(
    name: str, tmp_path: Path
) -> None:
    path, content = tmp_path / name, PACKED[name](TABLE.encode())
    path.write_bytes(content)
    assert len(agnews.load("train", str(path))) == 300
    for kept in range(10, len(content), 7 + len(content) // 40):
        path.write_bytes(content[:kept])
        with pytest.raises(DataError, match=r"is cut short or damaged|Truncated compressed stream"):
            agnews.load("train", str(path))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train.csv.gz", TABLE.encode(), "must be gzip by its name, and is text; rename it"),
        ("train.csv.xz", GZIPPED, "must be xz by its name, and is gzip"),
        ("train.zip", GZIPPED, "must be a zip archive by its name, and is gzip"),
        ("train.csv.gz", b"", "must have rows, and is empty"),
    ],
)
def test_a_file_that_is_not_packed_as_its_name_says_is_named(
    name: str, content: bytes, words: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        agnews.load("train", str(path))


def test_two_byte_order_marks_are_no_more_than_one(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(2 * "\ufeff".encode() + TABLE.encode())
    assert len(agnews.load("train", str(path))) == 300


@pytest.mark.parametrize(
    "members",
    [
        {"train.csv": TABLE},
        {"data": TABLE},
        {"ag/": "", "ag/train.csv": TABLE},
        {"__MACOSX/._train.csv": "x", "train.csv": TABLE, ".DS_Store": "x"},
        {"readme.txt": "read me", "train.csv": TABLE},
    ],
)
def test_an_archive_of_one_file_of_data_is_that_file(
    members: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "ag.zip"
    path.write_bytes(zipped(members))
    assert len(agnews.load("train", str(path))) == 300


@pytest.mark.parametrize(
    ("members", "shown"),
    [
        ({"train.csv": TABLE, "test.csv": TABLE}, r"got train\.csv, test\.csv;"),
        ({"a.txt": TABLE, "b.txt": TABLE}, r"got a\.txt, b\.txt;"),
        ({f"m{i}.csv": TABLE for i in range(9)}, r"m4\.csv, m5\.csv, \.\.\.;"),
        ({"ag/": ""}, "got none;"),
    ],
)
def test_an_archive_of_several_files_is_refused_with_their_names(
    members: dict[str, str], shown: str, tmp_path: Path
) -> None:
    path = tmp_path / "ag.zip"
    path.write_bytes(zipped(members))
    with pytest.raises(DataError, match=r"ag\.zip: the archive must hold one file .*" + shown):
        agnews.load("train", str(path))


def test_a_damaged_archive_is_one_sentence(tmp_path: Path) -> None:
    path, content = tmp_path / "ag.zip", bytearray(zipped({"train.csv": TABLE}))
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"ag\.zip: .* cut short or damaged"):
        agnews.load("train", str(path))


def test_text_is_not_changed_on_its_way(tmp_path: Path) -> None:
    path = tmp_path / "reviews.csv"
    content = '"5","a\r\nb\rc\n\x85 \u2028 \x00"\n'
    path.write_bytes(content.encode())
    with open_text(str(path)) as file:
        assert file.read() == content
    assert yelp.load("train", str(path)).texts == ["a\r\nb\rc\n\x85 \u2028 \x00"]
