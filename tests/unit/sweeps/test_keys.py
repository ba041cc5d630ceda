"""Equal keys are the same computation: what changes a key, and what must not."""

from pathlib import Path
from typing import Any

import pytest

from scaling_fl.config import Config, read_config
from scaling_fl.sweeps import keys
from scaling_fl.sweeps.keys import job_name_of, run_key


def config(**changes: Any) -> Config:
    base = {"task_name": "20newsgroups", "model": "tiny", "num_clients": 4, "optimiser": "adamw"}
    return read_config(base | changes)


def key(**changes: Any) -> str:
    return run_key(config(**changes), lambda place: f"content of {place}")


@pytest.mark.parametrize(
    "changes",
    [
        {"site_ids": [0, 0, 1, 1]},
        {"device": "cpu"},
        {"num_threads": 3},
        {"job_name": "other"},
        {"author": "someone"},
        {"checkpoints_dir": "elsewhere"},
        {"save_every": 2},
        {"keep_last": None},
        {"val_batch_size": 7},
        {"data": {"cache_dir": "elsewhere"}},
        {"tracking": {"runs_dir": "elsewhere"}},
        {"iid_split": True},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_where_a_run_is_changes_no_key(changes: dict[str, Any]) -> None:
    assert key(**changes) == key()


@pytest.mark.parametrize(
    "changes",
    [
        {"num_rounds": 4},
        {"seed": 1},
        {"data_seed": 1},
        {"num_clients": 5},
        {"learning_rate": 0.5},
        {"eval_every": 2},
        {"per_class_metrics": True},
        {"min_clients": 2},
        {"model": "minilm"},
        {"merge": {"method": "ties"}},
        {"stop_when": {"bytes": 1000000}},
        {"data": {"max_train_examples": 10}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_decides_the_record_changes_the_key(changes: dict[str, Any]) -> None:
    assert key(**changes) != key()


def test_without_a_number_of_clients_the_sites_count_and_their_devices_do_not() -> None:
    def of(sites: list[int]) -> str:
        return key(num_clients=None, site_ids=sites)

    assert of([0, 0, 1, 1]) == of([0, 1, 2, 3]) == key(site_ids=[0])
    assert of([0, 0, 1]) != of([0, 0, 1, 1])


def test_data_count_by_their_content_and_not_by_their_place(tmp_path: Path) -> None:
    def of(train: str, content: str) -> str:
        files = [tmp_path / train, tmp_path / "test.csv"]
        for file in files:
            file.write_text("x")
        paths = dict(zip(("train_path", "test_path"), map(str, files), strict=True))
        found = config(task_name="spooky_author", **paths)
        return run_key(found, lambda place: content if place == str(files[0]) else "test")

    assert of("a.csv", "texts") == of("b.csv", "texts")
    assert of("a.csv", "texts") != of("a.csv", "other texts")


def test_a_model_in_a_folder_counts_by_its_content(tmp_path: Path) -> None:
    found = config(model=str(tmp_path))
    assert run_key(found, lambda place: "one") != run_key(found, lambda place: "two")


def test_code_that_computes_changes_the_key_and_other_code_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "PACKAGE", tmp_path)
    for wing in ("core", "commands"):
        (tmp_path / wing).mkdir()

    def version(file: str, text: str) -> str:
        (tmp_path / file).write_text(text)
        keys.code_version.cache_clear()
        return keys.code_version()

    first = version("core/sums.py", "x = 1")
    assert version("commands/train.py", "y = 1") == first
    assert version("core/sums.py", "x = 2") != first
    assert version("core/sums.py", "x = 1") == first
    keys.code_version.cache_clear()


def test_a_key_is_a_digest_that_names_a_job() -> None:
    assert len(key()) == 64
    assert int(key(), 16)
    assert job_name_of("rates", key()) == f"rates-{key()[:12]}"
