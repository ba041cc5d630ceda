"""Every recipe of configs/ runs as it is, but for its size, and costs what was predicted."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import settings
from one_process import QuickRun

from scaling_fl.composition.prediction import predict
from scaling_fl.config import read_config
from scaling_fl.config.typed import merged

RECIPES = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
SMALL: dict[str, Any] = {
    "site_ids": [0],
    "num_rounds": 2,
    "num_clients": 6,
    "max_seq_len": 32,
    "eval_every": 1,
    "model": "tiny",
    "task_name": "spooky_author",
}
SMALLER: dict[str, dict[str, Any]] = {
    "docvqa_dp": {"privacy": {"groups_per_client": 3, "groups_per_round": 2, "delta": 0.01}},
    "flasc_dp": {"privacy": {"delta": 0.01}},
    "trimmed_mean": {"clients_per_round": 5},
    "krum": {"clients_per_round": 5, "merge": {"byzantine": 1}},
    "multikrum": {"clients_per_round": 5, "merge": {"byzantine": 1, "selected": 3}},
}


def recipe(path: Path) -> dict[str, Any]:
    """Read a recipe, as small as a test wants it; what makes it that recipe stays."""
    given: dict[str, Any] = yaml.safe_load(path.read_text())
    small = dict(SMALL)
    if isinstance(given.get("clients_per_round"), int):
        small["clients_per_round"] = min(given["clients_per_round"], 3)
    if given["num_local_epochs"] > 1:
        small["num_local_epochs"] = 2
    return merged(merged(given, small), SMALLER.get(path.stem, {}))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_configuration_without_problems(path: Path, tmp_path: Path) -> None:
    files = {"train_path": str(tmp_path), "test_path": str(tmp_path)}
    given = yaml.safe_load(path.read_text())
    assert "weighting" in given, "systems differ in it"
    read_config(given | {"task_name": "imdb"} | files)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_and_costs_what_was_predicted(
    path: Path, corpus: Path, tmp_path: Path
) -> None:
    changes = recipe(path)
    predicted = predict(read_config(settings(corpus, **changes)), lambda text: None)
    run = QuickRun(tmp_path / "run", shared=corpus, **changes).start_here()
    metrics = run.record.metrics
    assert run.record.last_round == 2
    if run.config.sampling == "fixed":  # poisson only in private recipes, whose draws are secret
        assert metrics["bytes.download"]["values"] == predicted.download_bytes
        assert metrics["bytes.upload"]["values"] == predicted.upload_bytes
        assert sum(metrics["bytes.plain"]["values"]) == predicted.plain_bytes
    assert metrics.get("privacy.epsilon", {"values": [None]})["values"][-1] == predicted.epsilon
    for tier in range(len(predicted.tiers) if len(predicted.tiers) > 1 else 0):
        assert len(metrics[f"validation.accuracy.tier{tier}"]["values"]) == 2
