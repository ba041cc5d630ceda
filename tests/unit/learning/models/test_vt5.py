"""VT5: its size, its published files with every tensor accounted for, and what it computes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import T5ForConditionalGeneration

from scaling_fl.core.errors import UserError
from scaling_fl.learning.models.adapters import Adapter, adapt
from scaling_fl.learning.models.documents import (
    load_document_model,
    load_document_tokenizer,
    load_kind,
    read_page,
    write_answers,
)
from scaling_fl.learning.models.vt5 import HEADS, VT5
from scaling_fl.learning.models.vt5_files import published_name, save_vt5
from tests.invoices import small_udop
from tests.torch_files import write_tensors

PUBLISHED = {
    **{"model_type": "t5", "d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
    **{"vocab_size": 32128, "max_2d_position_embeddings": 1024, "visual_module_config": {}},
}
TINY = load_document_tokenizer("tiny", Path())
CMU = Adapter(
    kind="lora",
    rank=6,
    alpha=16.0,
    dropout=0.1,
    targets=None,
    freeze_a=False,
    rslora=False,
    modules_to_save=(),
)


def outline(folder: Path) -> Any:
    (folder / "config.json").write_text(json.dumps(PUBLISHED))
    kind = load_kind(str(folder), TINY, folder)
    return load_document_model(str(folder), kind, seed=0, tokenizer=TINY, cache_dir=folder)


def tiny() -> Any:
    kind = load_kind("tiny", TINY, Path())
    return load_document_model("tiny", kind, seed=3, tokenizer=TINY, cache_dir=Path())


def load(folder: Path) -> Any:
    kind = load_kind(str(folder), TINY, folder)
    return load_document_model(str(folder), kind, seed=0, tokenizer=TINY, cache_dir=folder)


def inputs(number: int = 2, width: int = 7) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 200, (number, width), generator=draw)
    boxes = torch.randint(0, 1001, (number, width, 4), generator=draw)
    mask = torch.ones_like(ids)
    mask[1, -2:] = 0
    return ids, boxes, mask, torch.randn(number, 3, 32, 32, generator=draw)


def test_the_published_model_has_its_size(tmp_path: Path) -> None:
    model = outline(tmp_path)
    sizes = [parameter.numel() for parameter in model.parameters()]
    assert (sum(sizes), len(sizes), len(model.state_dict())) == (311_467_776, 476, 479)


def test_the_adapter_of_cmu_trains_as_many_parameters_as_they_did(tmp_path: Path) -> None:
    model = outline(tmp_path)
    adapted = adapt(model, CMU, heads=HEADS, seed=0)
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    of_lora = [name for name in trained if ".lora_A." in name]
    assert len(of_lora) == 72
    assert {name.split(".")[-4] for name in of_lora} == {"q", "v"}
    assert sum(parameter.numel() for parameter in trained.values()) == 3_419_136
    whole = sum(p.numel() for name, p in trained.items() if ".lora_" not in name)
    assert whole == 2_755_584


def test_the_names_are_those_of_the_published_files(tmp_path: Path) -> None:
    """Those of transformers 4.26, which the published file was written with."""
    names = {published_name(name) for name, _ in outline(tmp_path).named_parameters()}
    layer = "visual_embedding.image_model.encoder.layer.11"
    of_layer = {
        *(
            f"{layer}.{place}.{kind}"
            for place in (
                "attention.attention.query",
                "attention.attention.value",
                "attention.output.dense",
                "intermediate.dense",
                "output.dense",
                "layernorm_before",
                "layernorm_after",
            )
            for kind in ("weight", "bias")
        ),
        *(f"{layer}.{name}" for name in ("lambda_1", "lambda_2")),
        f"{layer}.attention.attention.key.weight",
    }
    assert of_layer == {name for name in names if name.startswith(f"{layer}.")}
    assert {
        "language_backbone.shared.weight",
        "language_backbone.encoder.block.0.layer.0.SelfAttention.q.weight",
        "spatial_embedding.spatial_emb_matcher.layers.0.bias",
        "visual_embedding.visual_emb_matcher.layers.0.weight",
        "visual_embedding.image_model.embeddings.patch_embeddings.projection.weight",
        "visual_embedding.image_model.pooler.layernorm.weight",
    } <= names


def pickled(folder: Path) -> None:
    """Save a state dict in torch's format, tied copies included, as transformers 4 did."""
    tensors = load_file(folder / "model.safetensors")
    shared = tensors["language_backbone.shared.weight"]
    for tied in ("encoder.embed_tokens", "decoder.embed_tokens", "lm_head"):
        tensors[f"language_backbone.{tied}.weight"] = shared
    write_tensors(tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("change", [lambda folder: None, pickled])
def test_a_saved_model_comes_back_to_the_last_bit(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    model = tiny()
    save_vt5(model, tmp_path)
    change(tmp_path)
    again = load(tmp_path)
    assert {k: v.tolist() for k, v in again.state_dict().items()} == {
        k: v.tolist() for k, v in model.state_dict().items()
    }
    frozen = [name for name, p in again.named_parameters() if not p.requires_grad]
    assert frozen
    assert all(name.startswith("visual_embedding.image_model.") for name in frozen)
    assert torch.equal(read_page(again, *inputs())[0], read_page(model, *inputs())[0])
    assert again.language_backbone.lm_head.weight is again.language_backbone.shared.weight


def test_transformers_reads_the_t5_of_a_saved_model_to_the_last_bit(tmp_path: Path) -> None:
    model = tiny()
    save_vt5(model, tmp_path)
    t5 = T5ForConditionalGeneration.from_pretrained(
        tmp_path, key_mapping={r"^language_backbone\.": ""}
    )
    expected = model.language_backbone.state_dict()
    assert t5.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in t5.state_dict().items())


def without(tensors: dict[str, Tensor]) -> None:
    del tensors["visual_embedding.image_model.encoder.layer.0.attention.attention.query.weight"]


def with_more(tensors: dict[str, Tensor]) -> None:
    tensors["visual_embedding.image_model.layers.0.attention.q_proj.weight"] = torch.zeros(2)


def with_another_shape(tensors: dict[str, Tensor]) -> None:
    tensors["spatial_embedding.x_position_embeddings.weight"] = torch.zeros(9, 32)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without, "has 1 missing, such as visual_embedding.image_model.encoder.layer.0"),
        (with_more, "has 1 unknown, such as visual_embedding.image_model.layers.0"),
        (with_another_shape, "has 1 of another shape, such as spatial_embedding.x_position"),
    ],
)
def test_every_tensor_is_accounted_for(
    tmp_path: Path, damage: Callable[[dict[str, Tensor]], None], message: str
) -> None:
    save_vt5(tiny(), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    damage(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=message):
        load(tmp_path)


def test_a_model_that_reads_no_pages_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(UserError, match="model must be a VT5"):
        load(tmp_path)


def test_words_and_pages_are_embedded_as_the_definition_says() -> None:
    model = tiny()
    ids, boxes, mask, pixels = inputs()
    spatial = model.spatial_embedding
    x, y = spatial.x_position_embeddings.weight, spatial.y_position_embeddings.weight
    total = x[boxes[..., 0]] + y[boxes[..., 1]] + x[boxes[..., 2]] + y[boxes[..., 3]]
    layer = spatial.spatial_emb_matcher.layers[0]
    normed = torch.nn.functional.layer_norm(
        total, (32,), spatial.LayerNorm.weight, spatial.LayerNorm.bias, 1e-12
    )
    words = model.language_backbone.shared(ids) + normed @ layer.weight.T + layer.bias
    tower = model.visual_embedding
    patches = tower.image_model(pixels).last_hidden_state
    layer = tower.visual_emb_matcher.layers[0]
    both = torch.cat([words, patches @ layer.weight.T + layer.bias], dim=1)
    whole = torch.cat([mask, torch.ones(2, 5, dtype=mask.dtype)], dim=1)
    hidden, seen = model.encode(ids, boxes, mask, pixels)
    expected = model.language_backbone.encoder(inputs_embeds=both, attention_mask=whole)
    torch.testing.assert_close(hidden, expected.last_hidden_state)
    assert torch.equal(seen, whole)
    assert patches.shape == (2, 1 + 2 * 2, 32)


def test_the_image_model_looks_at_a_page_alike_in_training() -> None:
    model = tiny()
    model.train()
    assert model.training
    assert not model.visual_embedding.image_model.training
    pixels = inputs()[-1]
    first, second = (model.visual_embedding(pixels) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("make", [tiny, small_udop])
def test_answers_are_those_of_the_generation_of_transformers(make: Callable[[], Any]) -> None:
    model = make()
    ids, boxes, mask, pixels = inputs()
    page = read_page(model, ids, boxes, mask, pixels)
    found = write_answers(model, page, end=TINY.eos_token_id, most=6)
    if isinstance(model, VT5):
        words = model.language_backbone.shared(ids) + model.spatial_embedding(boxes)
        both = torch.cat([words, model.visual_embedding(pixels)], dim=1)
        made = model.language_backbone.generate(
            inputs_embeds=both,
            attention_mask=page[1],
            **{"max_new_tokens": 6, "do_sample": False, "num_beams": 1},
        )
    else:
        made = model.generate(
            input_ids=ids,
            bbox=boxes / 1000,
            attention_mask=mask,
            pixel_values=pixels,
            **{"max_new_tokens": 6, "do_sample": False, "num_beams": 1},
        )
    end = TINY.eos_token_id
    rows = [[*row, end] for row in made[:, 1:].tolist()]
    assert found == [row[: row.index(end)] for row in rows]
    assert max(map(len, found)) > 0


def test_udop_is_loaded_whole_and_its_queries_and_values_are_adapted(tmp_path: Path) -> None:
    model = small_udop()
    model.save_pretrained(tmp_path)
    TINY.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    adapted = adapt(again, CMU, heads=load_kind(str(tmp_path), TINY, tmp_path).heads, seed=0)
    trained = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 2 * (2 + 4)
    assert {name.split(".")[-4] for name in trained} == {"q", "v"}
