"""Whole federations on texts and files as people have them."""

import csv
from pathlib import Path

import pytest
from one_process import QuickRun

from scaling_fl.learning.text.labelled import DataError
from tests.tiny_models import WORDS, save_model


def write(path: Path, rows: list[tuple[str, ...]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return str(path)


def authors(path: Path, texts: list[str], *names: str) -> str:
    rows = [(str(i), text, names[i % len(names)]) for i, text in enumerate(texts)]
    return write(path, [("id", "text", "author"), *rows])


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_a_classifier_that_reads_the_end_of_a_text_trains_on_texts_that_spell_it(
    family: str, tmp_path: Path
) -> None:
    texts = [*WORDS, "raven</s> ice", "<s>20</s> raven", "</s>", "ice </s></s> " * 20] * 2
    data = authors(tmp_path / "data.csv", texts, "EAP", "HPL", "MWS")
    settings = {"train_path": data, "test_path": data, "num_rounds": 1, "num_clients": 1}
    model = str(save_model(family, tmp_path / family))
    run = QuickRun(tmp_path / "job", model=model, **settings).start_here()
    assert run.record.last_round == 1
    assert not any("no test example" in note for note in run.notes)


def test_labels_that_no_test_example_has_are_told_once(tmp_path: Path) -> None:
    test = authors(tmp_path / "some.csv", WORDS, "HPL")
    run = QuickRun(tmp_path / "job", test_path=test, num_rounds=2).start_here()
    said = [note for note in run.notes if "no test example is of EAP, MWS (2 of 3 labels)" in note]
    assert len(said) == 1
    _, accuracy = run.results()["validation.accuracy"]
    _, f1 = run.results()["validation.f1_macro"]
    assert all(a < 1 or f == 1 for a, f in zip(accuracy, f1, strict=True))


@pytest.mark.parametrize("split", ["train", "test"])
def test_data_of_which_nothing_is_of_the_task_are_refused_before_a_round(
    split: str, tmp_path: Path
) -> None:
    rows = [("Category", "Text"), *((f"{topic}.a", "words") for topic in ("comp", "rec") * 20)]
    good = [
        (label.replace(".a", ".autos" if "rec" in label else ".graphics"), t) for label, t in rows
    ]
    paths = {
        "train": write(tmp_path / "train.csv", good),
        "test": write(tmp_path / "test.csv", good),
    }
    write(tmp_path / f"{split}.csv", [rows[0], *(("alt.atheism", "words"),) * 8])
    settings = {f"{name}_path": path for name, path in paths.items()}
    run = QuickRun(tmp_path / "job", task_name="20newsgroups_topics", num_rounds=1, **settings)
    with pytest.raises(DataError, match=rf"{split}\.csv: .*, and none of its 8 is one"):
        run.start_here()
    assert run.record.last_round == 0
