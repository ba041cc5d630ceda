"""Outlines: a config.json alone tells the shapes that the whole model has, and the memory."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scaling_fl.composition.prediction import npy_size
from scaling_fl.core.errors import UserError
from scaling_fl.core.outlines import outline_of
from scaling_fl.core.vector import Layout
from scaling_fl.learning.models.activations import activation_bytes
from scaling_fl.learning.models.adapters import adapt
from scaling_fl.learning.models.outline import outline_causal
from tests.tiny_models import FAMILIES, make_adapter, make_classification, save_model

GEMMA2_9B = {
    **{"model_type": "gemma2", "hidden_size": 3584, "num_hidden_layers": 42, "head_dim": 256},
    **{"num_attention_heads": 16, "num_key_value_heads": 8, "intermediate_size": 14336},
    **{"vocab_size": 256000},
}
MISTRAL_7B = {
    **{"model_type": "mistral", "hidden_size": 4096, "num_hidden_layers": 32},
    **{"num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336},
    **{"vocab_size": 32768},
}
OF_ENTRY = {"rank": 8, "alpha": 16.0, "targets": ("q_proj", "v_proj")}
OF_BASELINE = {"rank": 32, "alpha": 64.0, "targets": ("q_proj", "v_proj")}


def adapted(config: dict[str, Any], folder: Path, **adapter: Any) -> tuple[Layout, int]:
    """Return the vector of an outline with an adapter, and how many parameters there are in all."""
    file = folder / "config.json"
    file.write_text(json.dumps(config))
    model = adapt(outline_causal(file), make_adapter(**adapter), heads=[], seed=0)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    return Layout.of(model.named_parameters()), sum(p.numel() for p in model.parameters())


def test_the_entry_to_general_nlp_sends_what_flower_counted(tmp_path: Path) -> None:
    layout, total = adapted(GEMMA2_9B, tmp_path, kind="dora", **OF_ENTRY)
    assert (layout.size, len(layout.names)) == (4_730_880, 252)
    assert total == 9_241_705_984 + layout.size
    of_two_clients = 2 * npy_size(layout) / 2**20  # in one direction
    assert f"{of_two_clients:.3f}" == "36.155"
    assert f"{20 * of_two_clients:.2f} MiB" == "723.11 MiB"  # 10 rounds, down and up


def test_the_baseline_of_flower_sends_what_its_formula_says(tmp_path: Path) -> None:
    layout, _ = adapted(MISTRAL_7B, tmp_path, kind="lora", **OF_BASELINE)
    assert layout.size == 13_631_488
    assert f"{npy_size(layout) / 2**20:.2f} MiB" == "52.02 MiB"
    # 200 rounds of 2 clients, down and up; the leaderboard rounds up to 40.7
    assert f"{800 * npy_size(layout) / 2**30:.2f} GiB" == "40.64 GiB"


def test_flower_counts_arrays_as_numpy_saves_them(tmp_path: Path) -> None:
    layout, _ = adapted(GEMMA2_9B | {"num_hidden_layers": 1}, tmp_path, kind="dora", **OF_ENTRY)
    saved = io.BytesIO()
    for shape in layout.shapes:
        np.save(saved, np.zeros(shape, np.float32), allow_pickle=False)
    assert npy_size(layout) == saved.tell()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["none", "lora", "dora"])
def test_an_outline_has_the_shapes_and_the_memory_of_the_whole_model(
    family: str, kind: str, tmp_path: Path
) -> None:
    folder = save_model(family, tmp_path)
    found = []
    for name in (folder, folder / "config.json"):
        task = make_classification(str(name))
        model = task.load_model()
        if kind != "none":
            model = adapt(model, make_adapter(kind=kind), heads=task.heads(model), seed=0)
        shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        activations = activation_bytes(model, task.loss, task.largest_batch(4))
        found.append((shapes, Layout.of(model.named_parameters()), activations))
    assert found[0] == found[1]


def test_a_folder_is_an_outline_until_there_are_weights(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    assert outline_of(str(tmp_path)) is None
    file.write_text("{}")
    assert outline_of(str(tmp_path)) == outline_of(str(file)) == file
    (tmp_path / "model.safetensors").touch()
    assert outline_of(str(tmp_path)) is None
    assert outline_of("bert") is outline_of("google/bert") is None


@pytest.mark.parametrize("text", ["{}", "[1", '{"model_type": "no such model"}'])
def test_a_file_that_is_no_model_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"^model must be the config\.json of a model that"):
        outline_causal(tmp_path / "config.json")


def test_an_outline_takes_no_text_longer_than_the_model(tmp_path: Path) -> None:
    file = save_model("bert", tmp_path) / "config.json"
    task = make_classification(str(file), max_seq_len=65)
    with pytest.raises(UserError, match="max_seq_len must be at most 64"):
        task.load_model()


def test_nothing_of_the_size_of_a_model_is_held(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(GEMMA2_9B))
    model = outline_causal(tmp_path / "config.json")
    held = [*model.parameters(), *model.buffers()]
    assert sum(t.nbytes for t in held if not t.is_meta) < 2**20
    assert torch.get_default_device().type == "cpu"
