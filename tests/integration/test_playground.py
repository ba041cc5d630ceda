"""The playground's numbers are those of the commands that it names."""

import csv
import shlex
from pathlib import Path
from typing import Any

import pytest
from harness import settings
from one_process import QuickRun

from scaling_fl.commands import playground, playground_questions
from scaling_fl.config.merges import MERGES
from scaling_fl.config.typed import read_typed


@pytest.fixture
def small(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the questions of a tiny model, and of three merges."""
    of_corpus = settings(corpus)
    quick = {name: of_corpus[name] for name in ("task_name", "train_path", "test_path")}
    quick["data"] = of_corpus["data"] | {"max_train_examples": 40, "max_test_examples": 20}
    monkeypatch.setattr(playground_questions, "QUICK", {"model": "tiny", **quick})
    merges = {
        name: MERGES[name]
        for name in ("mean", "mean_of_senders", "ties", "flexlora", "trimmed_mean")
    }
    monkeypatch.setattr(playground_questions, "MERGES", merges)
    monkeypatch.setattr(playground_questions, "EPOCHS", (1, 2))
    monkeypatch.setattr(playground_questions, "STARTS", (0, 2))


def rows(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    return {(next(iter(row.values())), row["column"]): row for row in found}


@pytest.mark.slow
def test_every_number_is_what_its_command_comes_to(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments: dict[str, Any] = {"seed": 1, "is_quick": True, "num_processes": 1}
    out = tmp_path / "out"
    assert playground.main(out=out, **arguments) == 0
    printed = capsys.readouterr()
    assert max(map(len, printed.out.splitlines()[:-1])) <= 80
    assert {path.stem for path in out.glob("*.png")} == {
        *("distance", "gain", "over_rounds", "failure")
    }
    distance = rows(out / "distance.csv")
    assert len({row["value"] for row in distance.values()}) == 4 * 2

    gain = rows(out / "gain.csv")
    assert ("mean_of_senders", "LoRA %") not in gain, "refused where all send all"
    assert ("flexlora", "full %") not in gain
    assert "not by default: trimmed_mean (merge.trim=0.25)" in printed.out
    assert " merge.trim=0.25" in gain["trimmed_mean", "full %"]["command"]
    later = rows(out / "over_rounds.csv")["ties", "after 2"]
    for row, number in ((gain["ties", "LoRA %"], "value"), (later, None)):
        words = shlex.split(row["command"].partition(" with ")[2])
        given = read_typed(words, [tmp_path]).settings
        run = QuickRun(tmp_path / row["column"], shared=tmp_path, **given).start_here()
        assert run.record.last_round == 1
        if number:
            accuracy = run.record.metrics["validation.accuracy"]["values"][-1]
            assert float(row[number]) == 100.0 * accuracy

    assert playground.main(out=out, **arguments) == 0
    again = capsys.readouterr()
    assert "is done" in printed.err
    assert "is done" not in again.err
    assert again.out.splitlines()[:-1] == printed.out.splitlines()[:-1]
