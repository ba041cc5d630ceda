"""The command that looks: what it shows is what a run then does with the data."""

import json
from pathlib import Path

import pytest

from scaling_fl.commands import look
from scaling_fl.commands.settings import read_look
from scaling_fl.composition.tasks import make_task
from scaling_fl.learning.tasks.classification.family import Classification

ROOT = Path(__file__).parents[3]
ROWS = """\
text,stars,ward
one,good,N
two words,bad,S
a text that is too long for the model,good,N
three,bad,N
"""


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    Path("train.csv").write_text(ROWS)
    Path("test.csv").write_text("text,stars,ward\nfour,good,N\nfive,good,W\n")
    settings = ["task_name=table", "model=tiny", "train_path=train.csv", "test_path=test.csv"]
    settings += ["data.text=text", "data.label=stars", "data.cache_dir=cache", "max_seq_len=11"]
    settings += ["partition.kind=column", "partition.column=ward"]
    return [str(ROOT / "scripts" / "look.py"), "with", *settings]


def test_a_look_at_a_table(typed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    checked, _ = read_look("", [typed[0], "--json", "--out", "data.svg", *typed[1:]])
    assert checked is not None
    assert checked.line.options == {"--json": "", "--out": "data.svg"}
    assert look.main(checked.config, out=Path("data.svg"), as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["figure"] == "data.svg"
    assert Path("data.svg").is_file()
    assert found["label_names"] == ["bad", "good"]
    assert found["client_names"] == ["N", "S"]
    assert found["histograms"] == [[1, 2], [1, 0]]
    assert found["train"]["columns"] == ["text", "stars", "ward"]
    # The tiny model has a token for each letter, one before and one after them.
    lengths = [5, 11, 7, len("a text that is too long for the model") + 2]
    assert found["train"]["lengths"]["max"] == lengths[-1]
    assert found["train"]["num_tokens"] == sum(lengths)
    assert (found["train"]["num_cut"], found["train"]["num_cut_tokens"]) == (1, lengths[-1] - 11)
    assert found["test"]["num_cut"] == 0
    assert [example["label"] for example in found["examples"]] == ["bad", "good", "good"]
    foreign, absent = found["notes"]
    assert foreign == "1 of 2 test examples are of a ward that has no training examples"
    assert absent.startswith("no test example is of bad (1 of 2 labels)")
    task = make_task(checked.config)
    assert isinstance(task, Classification)
    examples = task.load_examples("train")
    seen = examples.token_ids[examples.offsets[2] : examples.offsets[3]].tolist()
    assert found["examples"][2]["text"] == task.tokenizer.decode(seen)


def test_a_look_says_it_in_words_and_refuses_what_a_run_refuses(
    typed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    checked, _ = read_look("", typed)
    assert checked is not None
    assert look.main(checked.config, out=None, as_json=False) == 0
    text = capsys.readouterr().out
    assert text.endswith("drawn: runs/look.png\n")
    assert Path("runs/look.png").is_file()
    assert "2 clients" in text
    assert look.main(checked.config, out=Path("train.csv/look.png"), as_json=False) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("Error: ")
    assert read_look("", [*typed, "data.label=star"]) == (None, 2)
    assert "use data.label=stars" in capsys.readouterr().err
