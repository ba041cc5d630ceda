"""What was understood of the data is readable at 80 columns, whatever stands in the data."""

from pathlib import Path
from typing import Any

import pytest

from scaling_fl.reporting.look import WIDTH, render
from scaling_fl.reporting.look_figure import draw_look
from scaling_fl.reporting.partition_figure import DOTS_PER_INCH

QUANTILES = {"min": 3, "25%": 5, "median": 7, "75%": 9, "95%": 20, "max": 1200}
SPLIT: dict[str, Any] = {
    "path": "train.csv",
    "columns": ["id", "text", "stars", "ward"],
    "num_examples": 10,
    "label_counts": [9, 1],
    "lengths": QUANTILES,
    "num_cut": 2,
    "num_tokens": 1000,
    "num_cut_tokens": 125,
}
LOOK: dict[str, Any] = {
    "task_name": "table",
    "model": "tiny",
    "max_seq_len": 8,
    "texts": ["text", "id"],
    "pairs": [],
    "label": "stars",
    "label_names": ["bad", "good"],
    "train": SPLIT,
    "test": SPLIT | {"num_examples": 5, "label_counts": [0, 5], "num_cut": 0, "path": "t.csv"},
    "test_share": None,
    "partition": "one for each ward",
    "client_names": ["North", "7"],
    "histograms": [[7, 0], [2, 1]],
    "entropies": [-0.0, 0.918],
    "examples": [{"label": "bad", "num_tokens": 4, "text": "[CLS] it was bad [SEP]"}],
    "notes": ["no test example has the label bad"],
}

TEXT = """\
train         10 examples: train.csv
test           5 examples: t.csv
columns: id, text, stars, ward
the model reads text and id (joined by a space); it learns stars

2 labels  train         test
  bad         9  90.0%     0    0.0%
  good        1  10.0%     5  100.0%

2 clients  examples  bits  commonest label
  North           7  0.00  bad (100%)
  7               3  0.92  bad (67%)
  one for each ward; 3 to 7 examples; bits: the entropy of a client's labels

tokens of a text  min  25%  median  75%  95%   max
  train             3    5       7    9   20  1200
  test              3    5       7    9   20  1200

max_seq_len=8 cuts 2 of 10 training texts (20.0%) and 12.5% of their tokens

Examples as tiny will see them:
  bad (4 tokens): [CLS] it was bad [SEP]

note: no test example has the label bad"""


def test_the_whole_page() -> None:
    assert render(LOOK) == TEXT


def test_what_is_held_out_is_named_so() -> None:
    lines = render(LOOK | {"test_share": 0.25}).splitlines()
    assert lines[1] == "test           5 examples: 25% of the rows, held out"


WIDE = "a very long name with many words, a \x1b[31mcolour\x07, and\na line break in it" * 4


def test_nothing_breaks_the_page() -> None:
    many = [f"{n} {WIDE}" for n in range(40)]
    split = SPLIT | {"columns": many, "label_counts": [1000] * 40, "path": WIDE}
    split |= {"num_examples": 40000, "num_cut": 39999}
    look = LOOK | {
        "train": split,
        "test": split,
        "label_names": many,
        "texts": many[:2],
        "pairs": many[2:4],
        "label": WIDE,
        "client_names": None,
        "histograms": [[n] * 40 for n in range(100)],
        "entropies": [5.0] * 100,
        "partition": "partition.kind=dirichlet_by_class",
        "examples": [{"label": WIDE, "num_tokens": 8, "text": WIDE * 3}],
        "notes": [WIDE],
        "model": WIDE,
    }
    lines = render(look).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert all(line.isprintable() for line in lines)
    assert "  and 28 more labels" in lines
    assert "  and 88 more clients" in lines


@pytest.mark.parametrize(("num_clients", "lengths"), [(2, [3, 9, 1200]), (100, [1]), (1, [5] * 9)])
def test_the_picture_has_the_clients_and_the_lengths(
    tmp_path: Path, num_clients: int, lengths: list[int]
) -> None:
    from matplotlib.image import imread

    look = LOOK | {
        "histograms": [[4, 5]] * num_clients,
        "entropies": [1.0] * num_clients,
        "client_names": [f"$ward {n}$" for n in range(num_clients)],
    }
    draw_look(tmp_path / "look.png", look, lengths, lengths)
    picture = imread(tmp_path / "look.png")
    assert picture.shape[1] == 9 * DOTS_PER_INCH
    assert picture.shape[0] > DOTS_PER_INCH * (2.6 + num_clients * min(0.42, 9.0 / num_clients))
    assert [path.name for path in tmp_path.iterdir()] == ["look.png"]
