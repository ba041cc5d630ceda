"""The split of the Spooky Author data is the published one, and its errors are one sentence."""

import csv
import runpy
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from scaling_fl.learning.tasks.classification import spooky_author

SCRIPT = Path(__file__).parents[3] / "scripts" / "spooky_author" / "split_data.py"
main = runpy.run_path(str(SCRIPT))["main"]


@pytest.fixture
def full(tmp_path):
    path = tmp_path / "full.csv"
    authors = ["EAP", "HPL", "MWS"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["id", "text", "author"])
        for row in range(103):
            writer.writerow([f"id{row:05}", f'NA, "{row}"\né', authors[row % 3]])
    return path


def arguments(full, folder):
    places = {"full": full, "train": folder / "new" / "train.csv", "test": folder / "test.csv"}
    return [word for name, path in places.items() for word in (f"--{name}-path", str(path))]


def test_the_split_equals_scikit_learns_with_the_published_seed(full, tmp_path):
    assert main(arguments(full, tmp_path)) == 0
    frame = pd.read_csv(full, index_col="id")
    train, test = train_test_split(frame, test_size=0.25, shuffle=True, random_state=1)
    assert pd.read_csv(tmp_path / "new" / "train.csv", index_col="id").equals(train)
    assert pd.read_csv(tmp_path / "test.csv", index_col="id").equals(test)


def test_the_task_reads_what_the_script_writes(full, tmp_path):
    main(arguments(full, tmp_path))
    train = spooky_author.load("train", str(tmp_path / "new" / "train.csv"))
    test = spooky_author.load("test", str(tmp_path / "test.csv"))
    assert (len(train), len(test)) == (77, 26)
    assert all(text.startswith('NA, "') for text in train.texts)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "this file must exist, and does not"),
        ("", "must be a UTF-8 CSV file"),
        ("id,text\n1,a\n", "row 1, column 'author': the header must be id,text,author"),
        ("id,text,author\n1,a,EAP\n", "at least 4 rows to split, got 1"),
        (b"id,text,author\n1,\xe9,EAP\n", "must be a UTF-8 CSV file"),
    ],
)
def test_a_file_that_cannot_be_split_is_one_sentence(tmp_path, capsys, content, words):
    path = tmp_path / "full.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(arguments(path, tmp_path)) == 1
    message = capsys.readouterr().err
    assert message.startswith(f"Error: {path}")
    assert words in message
    assert message.count("\n") == 1


def test_the_script_runs_by_itself_and_never_overwrites_its_source(full):
    before = full.read_bytes()
    command = [sys.executable, str(SCRIPT), "--full-path", str(full)]
    command += ["--train-path", str(full), "--test-path", "elsewhere.csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "must be three files" in done.stderr
    assert full.read_bytes() == before
