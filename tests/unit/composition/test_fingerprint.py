"""Fingerprints change with what they are of, and with nothing else."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scaling_fl.composition import fingerprint
from scaling_fl.composition.budget import make_budget
from scaling_fl.config import Config, read_config
from scaling_fl.core.digest import digest

ROOT = Path(__file__).parents[3]


def make_config(**changes: Any) -> Config:
    return read_config({"task_name": "20newsgroups", "num_clients": 4, **changes})


def of_computation(train_key: str = "a" * 64, num_clients: int = 4, **changes: Any) -> str:
    return digest(
        fingerprint.of_computation(make_config(**changes), num_clients, train_key, "b" * 64)
    )


def test_the_computation_is_the_settings_that_decide_it_and_the_content_of_the_data() -> None:
    base = of_computation()
    for changes in (
        {"learning_rate": 0.5},
        {"train_key": "c" * 64},
        {"num_clients": 5},
        {"adapter": {"kind": "lora"}},
    ):
        assert of_computation(**changes) != base
    for changes in (
        {"job_name": "other", "checkpoints_dir": "elsewhere"},
        {"site_ids": [0, 1], "device": "cpu", "num_threads": 1},
        {"num_rounds": 99, "eval_every": 2, "save_every": 3},
    ):
        assert of_computation(**changes) == base


def test_the_vector_means_what_its_model_its_labels_and_its_frozen_weights_make_of_it() -> None:
    plain = fingerprint.of_vector(make_config(model="tiny"), {"labels": ["x", "y"]}, "")
    assert plain == {"model": "tiny", "task_name": "20newsgroups", "labels": ["x", "y"]}
    adapted = make_config(model="tiny", adapter={"kind": "lora", "alpha": 32})
    assert fingerprint.of_vector(adapted, {"labels": ["x", "y"]}, "f00d") == plain | {
        "frozen weights": "f00d",
        "adapter.alpha": 32.0,
        "adapter.rslora": False,
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"weighting": "uniform", "privacy": {"clip": 1.0}},
        {"upload": {"codec": "nf4", "error_feedback": True}},
        {"scaffold": True},
    ],
)
def test_what_is_kept_for_the_owners_of_the_data_is_theirs_alone(changes: dict[str, Any]) -> None:
    def guarantee(num_clients: int = 4, key: str = "abc", **more: Any) -> dict[str, Any]:
        config = make_config(**changes, **more)
        budget = make_budget(config, num_clients, lambda note: None)
        terms = budget.guarantee if budget else {}
        return fingerprint.of_guarantee(config, num_clients, train_key=key, privacy_terms=terms)

    base = guarantee()
    assert base == guarantee(seed=3)
    assert base != guarantee(num_clients=5)
    assert base != guarantee(key="abd")
    assert base != guarantee(data_seed=1)
    assert base != guarantee(partition={"kind": "dirichlet_by_client"})


def test_what_the_server_remembers_of_control_variates_has_the_weights_of_before() -> None:
    def guarantee(**changes: Any) -> dict[str, Any]:
        config = make_config(**changes)
        return fingerprint.of_guarantee(config, 4, train_key="abc", privacy_terms={})

    assert guarantee(scaffold=True) != guarantee(scaffold=True, weighting="uniform")
    assert guarantee(scaffold=True) != guarantee(scaffold=True, clients=[0, 1, 2])
    in_turn, together = {"cohorts": [[2, 0], [1]]}, {"clients": [0, 1, 2]}
    assert guarantee(scaffold=True, **in_turn) == guarantee(scaffold=True, **together)
    assert guarantee() == guarantee(weighting="uniform")


def test_without_privacy_and_memory_nothing_is_guaranteed() -> None:
    assert fingerprint.of_guarantee(make_config(), 4, train_key="abc", privacy_terms={}) == {}


def test_machines_agree_on_the_rounds_too_but_not_on_where_their_files_are(tmp_path: Path) -> None:
    files = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for file in files:
        file.write_text("id,text,author\n")

    def of_machine(**changes: Any) -> dict[str, Any]:
        paths = {"train_path": str(files[0]), "test_path": str(files[0])} | changes
        config = read_config({"task_name": "spooky_author", **paths})
        return fingerprint.of_machines(config, 2)

    assert of_machine() == of_machine(train_path=str(files[1]), site_ids=[0, 1])
    assert of_machine() != of_machine(num_rounds=9)
    assert of_machine() != of_machine(stop_when={"bytes": 9})
    assert of_machine()["WORLD_SIZE"] == 2


def test_fingerprints_and_the_reader_of_runs_need_no_torch() -> None:
    code = (
        "import sys, scaling_fl.composition.fingerprint, scaling_fl.core.digest\n"
        "import scaling_fl.commands.watch\n"
        "print(sorted({'torch', 'transformers', 'sacred', 'numpy', 'pymongo'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
