"""Federations on images: what they learn, and that cuts drawn at random keep every law."""

import time
from pathlib import Path
from typing import Any

import pytest
from one_process import QuickRun, outcome

from scaling_fl.learning.images.stored import StoredImages
from tests.digits import write_flair, write_idx


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_idx(tmp_path_factory.mktemp("digits"))


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """Describe a federation on digits; a section is merged with the one that stands here."""
    base: dict[str, Any] = {
        "task_name": "fashion_mnist",
        "train_path": str(folder),
        "test_path": None,
        "max_seq_len": 128,
        "shared": folder,
    }
    data = {"cache_dir": str(folder / "cache"), "image_size": 8, "max_test_examples": 297}
    return base | changes | {"data": data | changes.get("data", {})}


@pytest.mark.slow
def test_a_tiny_transformer_learns_digits(folder: Path, tmp_path: Path) -> None:
    run = QuickRun(
        tmp_path,
        **settings(
            folder,
            num_rounds=6,
            num_local_epochs=3,
            batch_size=16,
            learning_rate=4e-3,
            data={"augment": False},
        ),
    ).start_here()
    _, accuracies = run.results()["validation.accuracy"]
    assert accuracies[-1] > 0.85, accuracies


@pytest.mark.parametrize("kind", ["none", "lora"])
def test_random_cuts_do_not_depend_on_placement_or_on_a_stop(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    changes = settings(
        folder,
        adapter={"kind": kind, "dropout": 0.1} if kind == "lora" else {},
        data={"max_train_examples": 96, "image_size": 12},
    )
    whole = QuickRun(tmp_path / "whole", **changes).start_here()
    QuickRun(tmp_path / "b", **changes | {"site_ids": [0, 1]}).start_here(stop_after=1)
    resumed = QuickRun(tmp_path / "b", **changes | {"site_ids": [0, 1, 2]}).start_here()
    assert outcome(resumed) == outcome(whole)
    plain = changes | {"data": changes["data"] | {"augment": False}}
    assert outcome(QuickRun(tmp_path / "plain", **plain).start_here()) != outcome(whole)


def test_several_labels_and_the_users_that_have_them_keep_every_law(tmp_path: Path) -> None:
    changes = settings(
        write_flair(tmp_path / "flair"),
        task_name="flair",
        num_clients=None,
        clients_per_round=3,
        per_class_metrics=True,
        partition={"kind": "column", "column": "user_id"},
        data={"image_size": 12},
    )
    whole = QuickRun(tmp_path / "whole", **changes).start_here()
    QuickRun(tmp_path / "b", **changes | {"site_ids": [0, 1]}).start_here(stop_after=1)
    resumed = QuickRun(tmp_path / "b", **changes | {"site_ids": [0, 1, 2]}).start_here()
    assert outcome(resumed) == outcome(whole)
    found = {name: values[-1] for name, (_, values) in whole.results().items()}
    for name in ("average_precision_macro", "average_precision_micro", "f1_micro", "loss"):
        assert f"validation.{name}" in found
    assert "validation.average_precision.animal" in found
    assert 0.0 < found["validation.average_precision_macro"] <= 1.0


def test_batches_take_little_of_a_round(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = 0.0
    copy = StoredImages.batch

    def timed(examples: StoredImages, indices: Any) -> Any:
        nonlocal spent
        begin = time.thread_time()
        try:
            return copy(examples, indices)
        finally:
            spent += time.thread_time() - begin

    monkeypatch.setattr(StoredImages, "batch", timed)
    begin = time.process_time()
    changes = settings(folder, num_rounds=1, data={"max_train_examples": 400})
    QuickRun(tmp_path, **changes).start_here()
    assert 0 < spent < 0.03 * (time.process_time() - begin)
