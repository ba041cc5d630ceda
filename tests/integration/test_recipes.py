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
from scaling_fl.learning.models.packaged import alpaca_folder
from scaling_fl.methods.schedules import SCHEDULES
from scaling_fl.reporting.plan import render
from tests.digits import write_flair, write_idx
from tests.invoices import write_invoices

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
OF_DOCUMENTS = ("docvqa_default", "docvqa_efficient", "docvqa_dp")
OF_INSTRUCTIONS = ("generalnlp", "generalnlp_flexlora", "generalnlp_baseline", "medical", "code")
OF_IMAGES = ("cifar10_flasc_dense", "cifar10_flasc_4", "flair_flasc_dense", "flair_flasc_4")
OF_IMAGES += ("fashion_mnist",)
CONVERSATIONS: dict[str, Any] = {
    **{"max_seq_len": 512, "batch_size": 2, "gradient_accumulation_steps": 2},
    **{"num_local_steps": 2, "precision": "fp32", "data": {"test_share": 0.2}},
    "num_local_epochs": 2,  # the default, in place of that of the other tests
}
"""What is small about a recipe that teaches a language model."""
INVOICES: dict[str, Any] = {
    **{"task_name": "docvqa", "num_clients": 2, "max_seq_len": 96, "batch_size": 4},
}
"""What is small about a recipe that reads pages."""


def recipe(path: Path) -> dict[str, Any]:
    """Read a recipe, as small as a test wants it; what makes it that recipe stays."""
    given: dict[str, Any] = yaml.safe_load(path.read_text())
    small = dict(SMALL)
    if isinstance(given.get("clients_per_round"), int):
        small["clients_per_round"] = min(given["clients_per_round"], 3)
    if given.get("num_local_epochs", 1) > 1 or "num_local_steps" in given:  # 2 is the default
        small["num_local_epochs"] = 2
    if path.stem in OF_INSTRUCTIONS:
        small |= CONVERSATIONS | {"task_name": given["task_name"]}
    if path.stem in OF_IMAGES:
        small |= {"task_name": given["task_name"], "data": {"image_size": 8}}
        del small["max_seq_len"]
    if given.get("partition", {}).get("kind") == "column":
        del small["num_clients"]
    if path.stem == "reddit_flasc":
        small |= {"task_name": given["task_name"], "num_clients": None}
    if path.stem in OF_DOCUMENTS:
        small |= INVOICES
    return merged(merged(given, small), SMALLER.get(path.stem, {}))


def with_images(changes: dict[str, Any], corpus: Path) -> dict[str, Any]:
    """Give a recipe of images some digits in the files of its data set."""
    write = write_flair if changes["task_name"] == "flair" else write_idx
    data = changes["data"] | {"cache_dir": str(corpus / "cache")}
    folder = write(corpus / changes["task_name"])
    if write is write_idx:
        data |= {"max_train_examples": 60, "max_test_examples": 20}
    more = {"max_seq_len": 128, "test_path": None, "num_clients": changes.get("num_clients")}
    return changes | more | {"train_path": str(folder), "data": data}


def with_rows(path: Path, changes: dict[str, Any], corpus: Path) -> dict[str, Any]:
    """Give a recipe of instructions a file of sums, and other recipes what they have."""
    if path.stem in OF_IMAGES:
        return with_images(changes, corpus)
    if path.stem == "reddit_flasc":
        file = corpus / "comments.jsonl"
        rows = [{"author": f"u{n % 7}", "body": f"The {n}th comment."} for n in range(60)]
        file.write_text("\n".join(map(json.dumps, rows)))
        data = {"cache_dir": str(corpus / "cache")} | changes["data"]
        return changes | {"train_path": str(file), "test_path": None, "data": data}
    if path.stem in OF_DOCUMENTS:
        train = write_invoices(corpus / "pages", "train", range(16))
        test = write_invoices(corpus / "pages", "val", range(16, 22))
        return changes | {"train_path": str(train), "test_path": str(test)}
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
    if path.stem in (*OF_IMAGES, "reddit_flasc"):
        task = {"train_path": str(tmp_path)}
    if path.stem in OF_DOCUMENTS:
        task = files
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
    if run.config.task_name == "flair":
        assert len(metrics["validation.average_precision_macro"]["values"]) == 2


@pytest.mark.nightly
@pytest.mark.parametrize("name", OF_INSTRUCTIONS)
def test_a_recipe_teaches_a_real_language_model_real_rows(name: str, tmp_path: Path) -> None:
    given = recipe(Path(__file__).parents[2] / "configs" / f"{name}.yaml")
    rows = json.loads((alpaca_folder() / "alpaca_en_demo.json").read_text())
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([row for row in rows if row["input"]][:80]))
    here: dict[str, Any] = {
        **{"model": "smollm2", "train_path": str(file), "max_seq_len": 96, "batch_size": 1},
        **{"data_seed": 1, "num_threads": 2, "device": "cpu", "num_clients": 4, "num_rounds": 2},
        **{"clients_per_round": 2, "num_local_steps": 1, "gradient_accumulation_steps": 1},
        "test_path": None,
    }
    run = QuickRun(tmp_path / "run", shared=tmp_path, **merged(given, here)).start_here()
    assert run.config.load.bits == 4
    metrics = run.record.metrics
    for loss in ("train.loss", "validation.loss"):
        assert 0.5 < metrics[loss]["values"][0] < 5.0, "that of a model that can write"
    assert metrics["update.norm_mean"]["values"][0] > 0.0


GEMMA2_9B = {
    **{"model_type": "gemma2", "hidden_size": 3584, "num_hidden_layers": 42, "head_dim": 256},
    **{"num_attention_heads": 16, "num_key_value_heads": 8, "intermediate_size": 14336},
    "vocab_size": 256000,
}
MISTRAL_7B = {
    **{"model_type": "mistral", "hidden_size": 4096, "num_hidden_layers": 32, "head_dim": 128},
    **{"num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336},
    "vocab_size": 32768,
}
QWEN2_5_CODER_500M = {
    **{"model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "head_dim": 64},
    **{"num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864},
    **{"vocab_size": 151936, "tie_word_embeddings": True},
}


def adapter_size(model: dict[str, Any], adapter: dict[str, Any]) -> tuple[int, int]:
    """Count the parameters and tensors of an adapter from the sizes of the layers it is on."""
    hidden, wide, head = (model[k] for k in ("hidden_size", "intermediate_size", "head_dim"))
    queries, keys = model["num_attention_heads"] * head, model["num_key_value_heads"] * head
    sizes = {"q_proj": (hidden, queries), "k_proj": (hidden, keys), "v_proj": (hidden, keys)}
    sizes |= {"o_proj": (queries, hidden), "gate_proj": (hidden, wide)}
    sizes |= {"up_proj": (hidden, wide), "down_proj": (wide, hidden)}
    is_dora = adapter["kind"] == "dora"
    of_layer = sum(
        adapter["rank"] * sum(sizes[name]) + is_dora * sizes[name][1] for name in adapter["targets"]
    )
    num_layers = model["num_hidden_layers"]
    return num_layers * of_layer, num_layers * len(adapter["targets"]) * (2 + is_dora)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model", "times_trained"),
    [
        ("generalnlp", GEMMA2_9B, 20),
        ("generalnlp_flexlora", GEMMA2_9B, 20),
        ("generalnlp_baseline", MISTRAL_7B, 400),
        ("medical", QWEN2_5_CODER_500M, 40),
        ("code", QWEN2_5_CODER_500M, 20),
    ],
)
def test_a_recipe_is_planned_for_the_config_of_its_own_model(
    name: str, model: dict[str, Any], times_trained: int, tmp_path: Path
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(model))
    given = yaml.safe_load((RECIPES[0].parent / f"{name}.yaml").read_text())
    data = {"train_path": str(tmp_path)} if name in ("medical", "code") else {}
    plan = predict(read_config(given | data | {"model": str(file)}, needs_weights=False), print)
    size, num_tensors = adapter_size(model, given["adapter"])
    assert plan.trainable_parameters == size
    assert plan.npy_bytes == 2 * times_trained * (4 * size + 128 * num_tensors)
    # A weight has 4 bits and its part of two scales, but in the embeddings and the head, which are
    # one in two of the models.
    of_32_bits = (1 + (name == "generalnlp_baseline")) * model["vocab_size"] * model["hidden_size"]
    of_4_bits = plan.total_parameters - size - of_32_bits
    expected = 4 * (size + of_32_bits) + (4 + 8 / 64 + 32 / 64 / 256) / 8 * of_4_bits
    assert plan.memory["model"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_the_entry_to_general_nlp_costs_what_its_authors_counted(tmp_path: Path) -> None:
    """README of the entry: 723.11 MB of 200,000 MB; its megabytes are MiB."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps(GEMMA2_9B))
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
