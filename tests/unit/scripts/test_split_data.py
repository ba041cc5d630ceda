"""The split of the Spooky Author data is the published one, and its errors are one sentence."""

import csv
import re
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
        ("", "the file must have rows, and is empty"),
        ("id,text\n1,a\n", "row 1, column 'author': the header must name this column"),
        ("id,text,author,Text\n1,a,EAP,b\n", "row 1, column 'text': .* names it 2 times"),
        ("id,text,author\n1,a,EAP\n", "at least 4 rows to split, got 1"),
        (b"id,text,author\n1,\xe9,EAP\n", "row 2, column 'text': the file must be UTF-8"),
        ("id,text,author\n1,a,EAP\n2,b,HPL,\n", "row 3, column 'author': .* 3 columns, got 4"),
        ("id,text,author\n1,a,EAP\n2,b\n", "row 3, column 'author': .* 3 columns, got 2"),
        ("id,text,author\n" + 4 * "1,a,EAP,\n", "row 2, column 'author': .* 3 columns, got 4"),
        ('id,text,author\n1,a,EAP\n2,"b,EAP\n', "row 3: .* quotation marks"),
        ("id,text,author\n".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
    ],
)
def test_a_file_that_cannot_be_split_is_one_sentence_and_nothing_is_written(
    tmp_path, capsys, content, words
):
    path = tmp_path / "full.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = sorted(tmp_path.iterdir())
    assert main(arguments(path, tmp_path)) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"Error: {path}")
    assert re.search(words, message)
    assert message.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def symlink(full):
    (full.parent / "link.csv").symlink_to(full)
    return "link.csv"


def hard_link(full):
    (full.parent / "hard.csv").hardlink_to(full)
    return "hard.csv"


def folder_link(full):
    (full.parent / "elsewhere").symlink_to(full.parent)
    return "elsewhere/full.csv"


@pytest.mark.parametrize(
    "spell",
    [
        symlink,
        hard_link,
        folder_link,
        lambda full: "full.csv",
        lambda full: "./full.csv",
        lambda full: f"../{full.parent.name}/full.csv",
        lambda full: "FULL.csv",
        lambda full: str(full),
        lambda full: "new/../Test.csv",
    ],
)
def test_no_spelling_of_a_path_overwrites_the_source_or_one_file_by_the_other(
    full, monkeypatch, capsys, spell
):
    monkeypatch.chdir(full.parent)
    before, train = full.read_bytes(), spell(full)
    for options in (
        ["--train-path", train, "--test-path", "test.csv"],
        ["--train-path", "test.csv", "--test-path", train],
    ):
        assert main(["--full-path", str(full), *options]) == 2
        assert "must be three files, and" in capsys.readouterr().err
        assert full.read_bytes() == before
        assert not (full.parent / "test.csv").exists()


def test_both_files_are_written_or_neither(full, tmp_path, capsys):
    target = tmp_path / "kept.csv"
    (tmp_path / "link.csv").symlink_to(target)
    target.write_text("before")
    target.chmod(0o600)
    (tmp_path / "file").write_text("no folder")
    options = ["--full-path", str(full), "--train-path", str(tmp_path / "link.csv")]
    for place in (tmp_path / "file" / "test.csv", tmp_path):
        assert main([*options, "--test-path", str(place)]) in (1, 2)
        assert capsys.readouterr().err.startswith(f"Error: {place}")
        assert target.read_text() == "before"
    assert main([*options, "--test-path", str(tmp_path / "test.csv.gz")]) == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert len(spooky_author.load("train", str(target))) == 77
    assert len(spooky_author.load("test", str(tmp_path / "test.csv.gz"))) == 26
    assert target.stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob(".*"))


def test_the_script_runs_by_itself_and_never_overwrites_its_source(full):
    before = full.read_bytes()
    command = [sys.executable, str(SCRIPT), "--full-path", str(full)]
    command += ["--train-path", str(full), "--test-path", "elsewhere.csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "must be three files" in done.stderr
    assert full.read_bytes() == before
