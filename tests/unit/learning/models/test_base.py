"""The frozen base of an adapter moves by matrices of the shape of each layer, whatever it is."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scaling_fl.core.vector import flatten_parameters
from scaling_fl.learning.models.adapters import adapt
from scaling_fl.learning.models.base import Base
from tests.tiny_models import make_adapter, make_classification, save_model

LAYERS = {
    "bert": {"bert.encoder.layer.0.intermediate.dense": (32, 16)},
    "gpt2": {"transformer.h.0.attn.c_attn": (48, 16), "transformer.h.1.mlp.c_proj": (16, 64)},
}
"""Layers that are not square: out and in. GPT-2 has its weights the other way round."""


def adapted(family: str, folder: Path) -> tuple[nn.Module, Base, dict[str, slice]]:
    """Adapt all linear layers; returns the model, its base, and where each layer's matrix is."""
    model = make_classification(str(save_model(family, folder))).load_model()
    adapter = make_adapter(targets=("all-linear",), rank=4, alpha=6.0)
    model = adapt(model, adapter, heads=["classifier" if family == "bert" else "score"], seed=1)
    layout, _ = flatten_parameters(model)
    places, offset = {}, 0
    for name in layout.names:
        layer, is_b, _ = name.partition(".lora_B.")
        if is_b:
            size = model.get_submodule(layer).get_base_layer().weight.numel()  # type: ignore[operator]
            places[layer], offset = slice(offset, offset + size), offset + size
    return model.eval(), Base(model, layout), places


@torch.no_grad()
@pytest.mark.parametrize("family", sorted(LAYERS))
def test_an_output_changes_by_the_scaled_matrix_times_the_input(
    family: str, tmp_path: Path
) -> None:
    model, base, places = adapted(family, tmp_path)
    rng = torch.Generator().manual_seed(1)
    moved = torch.randn(max(place.stop for place in places.values()), generator=rng)
    for name, (out, num_in) in LAYERS[family].items():
        layer: Any = model.get_submodule(name)
        inputs = torch.randn(3, num_in, generator=rng)
        base.move_to(None)
        before: Tensor = layer(inputs)
        base.move_to(moved)
        matrix = moved[places[name]].view(out, num_in)
        expected = before + 6.0 / 4 * inputs @ matrix.T
        assert torch.allclose(layer(inputs), expected, atol=1e-4)


def test_moves_start_from_the_first_weights(tmp_path: Path) -> None:
    model, base, places = adapted("gpt2", tmp_path)
    size = max(place.stop for place in places.values())
    frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    first = {name: p.clone() for name, p in frozen.items()}
    one, other = torch.full((size,), 0.1), torch.full((size,), 0.3)
    base.move_to(one)
    once = {name: p.clone() for name, p in frozen.items()}
    assert sum(not torch.equal(once[name], first[name]) for name in frozen) == len(places)
    base.move_to(other)
    base.move_to(one.clone())
    assert all(torch.equal(p, once[name]) for name, p in frozen.items())
    base.move_to(None)
    assert all(torch.equal(p, first[name]) for name, p in frozen.items())
