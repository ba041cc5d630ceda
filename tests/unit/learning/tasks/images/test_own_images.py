"""Images of one's own: folders, tables of paths, several labels, clients."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scaling_fl.composition.tasks import make_task
from scaling_fl.config import read_config
from scaling_fl.learning.images.stored import StoredImages
from scaling_fl.learning.task import NaturalClients, Split
from scaling_fl.learning.tasks.images.flair import LABELS
from scaling_fl.learning.text.labelled import DataError

RANDOM = np.random.default_rng(3)


def picture(path: Path, side: int = 6) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return path


def load(split: Split, cache: Path, **settings: Any) -> StoredImages:
    data = {"cache_dir": str(cache), **settings.pop("data", {})}
    task = make_task(
        read_config({"task_name": "images", "model": "tiny"} | settings | {"data": data})
    )
    found = task.load_examples(split)
    assert isinstance(found, StoredImages)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        picture(tmp_path / "pets" / ("cat", "dog", "10")[number % 3] / f"{number}.png")
    (tmp_path / "pets" / ".hidden").mkdir()
    return tmp_path / "pets"


def test_each_folder_is_a_label_and_a_share_is_held_out(folder: Path, tmp_path: Path) -> None:
    settings = {"train_path": str(folder), "data": {"test_share": 0.5}}
    train, test = (load(split, tmp_path / "cache", **settings) for split in ("train", "test"))
    assert sorted([*train.labels, *test.labels]) == [0, 0, 1, 1, 2, 2]
    seen = {pixels.tobytes() for part in (train, test) for pixels in part.pixels}
    assert len(seen) == 6, "no image is in both"


def test_a_changed_image_of_the_same_size_makes_a_new_cache(folder: Path, tmp_path: Path) -> None:
    file = folder / "cat" / "0.bmp"
    (folder / "cat" / "0.png").unlink()
    Image.new("RGB", (6, 6), "red").save(file)
    settings = {"train_path": str(folder), "test_path": str(folder)}
    before = load("train", tmp_path / "cache", **settings)
    again = load("train", tmp_path / "cache", **settings)
    Image.new("RGB", (6, 6), "blue").save(file)
    after = load("train", tmp_path / "cache", **settings)
    assert before.key == again.key != after.key
    assert not np.array_equal(before.pixels, after.pixels)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Write a table of paths inside its folder, with several labels and a client in each row."""
    rows = [("red; blue", "North"), ("", "South"), ("blue", "North"), ("green,red", "9")]
    with (tmp_path / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "tags", "ward", "kind"])
        for number, (tags, ward) in enumerate(rows):
            picture(tmp_path / "photos" / f"{number}.png")
            writer.writerow([f"photos/{number}.png", tags, ward, "ab"[number % 2]])
    return tmp_path / "list.csv"


def test_a_table_names_files_labels_and_clients(table: Path, tmp_path: Path) -> None:
    settings = {
        "train_path": str(table),
        "test_path": str(tmp_path),
        "data": {"image": "file", "label": "kind"},
        "partition": {"kind": "column", "column": "ward"},
    }
    train = load("train", tmp_path / "cache", **settings)
    assert train.labels.tolist() == [0, 1, 0, 1]
    assert train.owners is not None
    task = make_task(read_config({"task_name": "images", "model": "tiny", **settings}))
    assert isinstance(task, NaturalClients)
    names = task.client_names()
    assert [names[owner] for owner in train.owners] == ["North", "South", "North", "9"]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_cell_may_list_several_labels_or_none(table: Path, tmp_path: Path, as_json: bool) -> None:
    if as_json:
        with table.open() as file:
            rows = list(csv.DictReader(file))
        split = [[tag for tag in ("red", "blue", "green") if tag in row["tags"]] for row in rows]
        table = tmp_path / "list.json"
        table.write_text(json.dumps([row | {"tags": tags} for row, tags in zip(rows, split)]))  # noqa: B905
    settings = {"train_path": str(table), "test_path": str(tmp_path)}
    data = {"image": "file", "label": "tags", "multi_label": True}
    train = load("train", tmp_path / "cache", **settings, data=data)
    assert train.marks is not None
    assert train.marks.astype(int).tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 0], [0, 1, 1]]
    assert train.labels.tolist() == [0, 0, 0, 1]


def test_what_is_no_image_is_named(table: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "2.png").write_text("nothing to see")
    data = {"image": "file", "label": "kind"}
    settings = {"train_path": str(table), "test_path": str(table.parent)}
    with pytest.raises(DataError, match=r"photos/2\.png: this must be a whole image"):
        load("train", tmp_path / "cache", **settings, data=data)
    (tmp_path / "photos" / "2.png").unlink()
    with pytest.raises(DataError, match=r"photos/2\.png: this file must exist"):
        load("train", tmp_path / "cache", **settings, data=data)
    (folder / "dog" / "notes.txt").write_text("good dogs")
    with pytest.raises(DataError, match=r"dog/notes\.txt: this must be a whole image"):
        load("train", tmp_path / "cache", train_path=str(folder), test_path=str(folder))


def write_flair(folder: Path) -> Path:
    """Write seven photos of three users, the last of whom is in the test data alone."""
    records = []
    for number in range(7):
        path = folder / "small_images" / f"{number:03}.jpg"
        picture(path, side=8 + number % 2)
        records.append(
            {
                "image_id": path.stem,
                "user_id": ("b@1", "a@2", "c@3")[2 if number == 6 else number % 2],
                "labels": [LABELS[number], LABELS[16]][: 1 + number % 2],
                "partition": "test" if number > 4 else "train",
                "fine_grained_labels": [],
            }
        )
    (folder / "labels_and_metadata.json").write_text(json.dumps(records))
    return folder


def test_the_users_of_flair_are_its_clients(tmp_path: Path) -> None:
    folder = write_flair(tmp_path / "flair")
    settings = {
        "task_name": "flair",
        "train_path": str(folder),
        "partition": {"kind": "column", "column": "user_id"},
    }
    train, test = (load(split, tmp_path / "cache", **settings) for split in ("train", "test"))
    assert train.owners is not None
    assert train.owners.tolist() == [1, 0, 1, 0, 1]
    assert train.marks is not None
    assert train.marks.sum(1).tolist() == [1, 2, 1, 2, 1]
    assert train.marks[:, 16].tolist() == [False, True, False, True, False]
    assert test.owners is not None
    assert test.owners.tolist() == [0, -1]
    assert train.pixels.shape[1:] == (37, 37, 3), "squares of 8/7 of what tiny sees"


def test_a_label_that_flair_does_not_have_is_named(tmp_path: Path) -> None:
    folder = write_flair(tmp_path / "flair")
    file = folder / "labels_and_metadata.json"
    file.write_text(file.read_text().replace('"animal"', '"minotaur"'))
    with pytest.raises(DataError, match=r"record 1: labels must be a list .* got \['minotaur'\]"):
        load("train", tmp_path / "cache", task_name="flair", train_path=str(folder))
