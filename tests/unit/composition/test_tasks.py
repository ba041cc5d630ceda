"""The tasks of a configuration mean what they meant to the jobs that were saved before."""

import json
from pathlib import Path
from typing import Any

import pytest

from scaling_fl.composition.tasks import make_task
from scaling_fl.config import read_config

SAVED = Path(__file__).parents[2] / "fixtures" / "jobs_of_e368924"


@pytest.mark.parametrize("job", ["flasc", "feedback"])
def test_an_old_job_finds_its_data_and_labels_again(job: str, tmp_path: Path) -> None:
    """A job goes on only with the same examples, by their key, and the same meaning."""
    round_folder = SAVED / "checkpoints" / job / "round-000002"
    settings: dict[str, Any] = json.loads((round_folder / "config.json").read_text())
    manifest = json.loads((round_folder / "manifest.json").read_text())
    kept = {name: settings[name] for name in ("task_name", "model", "max_seq_len", "data_seed")}
    paths = {f"{split}_path": str(SAVED / f"{split}.csv") for split in ("train", "test")}
    task = make_task(read_config(kept | paths | {"data": {"cache_dir": str(tmp_path)}}))
    keys = [task.load_examples("train").key[:12], task.load_examples("test").key[:12]]
    assert keys == manifest["progress"]["computation"]["data"]
    assert manifest["identity"]["labels"] == task.meaning["labels"]
