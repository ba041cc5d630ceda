"""Every recipe of configs/ runs as it is, but for its size, and costs what was predicted."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import settings
from one_process import QuickRun

from scaling_fl.composition.prediction import predict
from scaling_fl.config import read_config
from scaling_fl.config.typed import merged
from scaling_fl.methods.schedules import SCHEDULES
from scaling_fl.reporting.plan import render

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
    "medical": {"optimiser": "adamw_8bit"},  # that of the recipe is for GPUs
    "code": {"optimiser": "adamw_8bit"},
}
OF_INSTRUCTIONS = ("generalnlp", "generalnlp_flexlora", "generalnlp_baseline", "medical", "code")
CONVERSATIONS: dict[str, Any] = {
    **{"max_seq_len": 512, "batch_size": 2, "gradient_accumulation_steps": 2},
    **{"num_local_steps": 2, "precision": "fp32", "data": {"test_share": 0.2}},
    "num_local_epochs": 2,  # the default, in place of that of the other tests
}
"""What is small about a recipe that teaches a language model."""


def recipe(path: Path) -> dict[str, Any]:
    """Read a recipe, as small as a test wants it; what makes it that recipe stays."""
    given: dict[str, Any] = yaml.safe_load(path.read_text())
    small = dict(SMALL)
    if isinstance(given.get("clients_per_round"), int):
        small["clients_per_round"] = min(given["clients_per_round"], 3)
    if given.get("num_local_epochs", 1) > 1:
        small["num_local_epochs"] = 2
    if path.stem in OF_INSTRUCTIONS:
        small |= CONVERSATIONS | {"task_name": given["task_name"]}
    return merged(merged(given, small), SMALLER.get(path.stem, {}))


def with_rows(path: Path, changes: dict[str, Any], corpus: Path) -> dict[str, Any]:
    """Give a recipe of instructions a file of sums, and other recipes what they have."""
    if path.stem not in OF_INSTRUCTIONS:
        return changes
    file = corpus / "sums.jsonl"
    rows = [
        {"instruction": f"Add {n}.", "input": f"{n} + {n}", "output": str(2 * n)} for n in range(60)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    data = {"cache_dir": str(corpus / "cache")} | changes["data"]
    return changes | {"train_path": str(file), "test_path": None, "data": data}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_configuration_without_problems(path: Path, tmp_path: Path) -> None:
    files = {"train_path": str(tmp_path), "test_path": str(tmp_path)}
    given = yaml.safe_load(path.read_text())
    assert "weighting" in given, "systems differ in it"
    task = {"task_name": "imdb"} | files
    if path.stem in OF_INSTRUCTIONS:
        task = {"train_path": str(tmp_path), "data": {"test_share": 0.1}}
    read_config(given | task)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_and_costs_what_was_predicted(
    path: Path, corpus: Path, tmp_path: Path
) -> None:
    changes = with_rows(path, recipe(path), corpus)
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


@pytest.mark.slow
def test_the_entry_to_general_nlp_costs_what_its_authors_counted(tmp_path: Path) -> None:
    """README of the entry: 723.11 MB of 200,000 MB; its megabytes are MiB."""
    shape = {"hidden_size": 3584, "num_hidden_layers": 42, "intermediate_size": 14336}
    heads = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256}
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model_type": "gemma2", "vocab_size": 256000, **shape, **heads}))
    given = yaml.safe_load((RECIPES[0].parent / "generalnlp.yaml").read_text())
    plan = predict(read_config(given | {"model": str(file)}, needs_weights=False), print)
    assert plan.trainable_parameters == 4_730_880
    assert f"{plan.npy_bytes / 2**20:.2f} MiB" == "723.11 MiB"
    assert "723.11 MiB" in render(plan.to_json())
    # Ours has one header for the whole vector in place of one for each of 252 parameters.
    (client,) = plan.tiers
    assert 4 * 4_730_880 < client.upload_bytes < 4 * 4_730_880 + 100
    assert sum(plan.upload_bytes) == 20 * client.upload_bytes


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("generalnlp", {1: "4.880e-05", 5: "2.550e-05", 9: "2.199e-06", 10: "1.000e-06"}),
        ("medical", {1: "4.890e-05", 2: "4.570e-05", 9: "6.101e-06", 10: "5.000e-06"}),
    ],
)
def test_the_learning_rates_are_those_of_flowertune(name: str, rates: dict[int, str]) -> None:
    given = yaml.safe_load((RECIPES[0].parent / f"{name}.yaml").read_text())
    assert given["schedule"]["kind"] == "cosine"
    final = given["schedule"]["final_learning_rate"]
    rate = SCHEDULES["cosine"](given["learning_rate"], final, given["num_rounds"])
    assert {number: f"{rate(number):.3e}" for number in rates} == rates
