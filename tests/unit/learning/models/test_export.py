"""Exported folders: what transformers and PEFT load from them answers as the trained model does."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GemmaTokenizer,
    pipeline,
)

from scaling_fl.core.vector import Layout, flatten_parameters
from scaling_fl.learning.models.adapter_card import adapter_card
from scaling_fl.learning.models.adapters import Adapter, adapt, frozen_and_new
from scaling_fl.learning.models.export import merge_adapter, save_adapter, save_classifier
from scaling_fl.learning.models.loading import load_classifier, load_tokenizer
from scaling_fl.learning.tasks.classification.labels import beside_the_encoder
from scaling_fl.learning.text.plain_text import plain_text_tokenizer
from tests.tiny_models import FAMILIES, make_adapter, save_model

# peft 0.21.2 asks transformers 5.23 by a name that goes away in its version 6.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

LABELS = ["World", "Sports", "Sci/Tech"]
KINDS = ["none", "head", "lora", "dora"]
IDS = torch.tensor([[3, 4, 5, 6, 7], [8, 9, 10, 2, 2]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def trained(name: str, adapter: Adapter) -> tuple[nn.Module, Any]:
    """Load a model as a worker does, and give its vector values that training might give it."""
    tokenizer = load_tokenizer(name, Path("unused"))
    model = load_classifier(
        name,
        num_labels=len(LABELS),
        max_seq_len=16,
        seed=5,
        tokenizer=tokenizer,
        cache_dir=Path("unused"),
    )
    if adapter.kind != "none":
        model = adapt(model, adapter, heads=beside_the_encoder(model), seed=1)
    _, vector = flatten_parameters(model)
    vector.add_(torch.randn(vector.shape, generator=torch.Generator().manual_seed(3)), alpha=0.2)
    return model, tokenizer


def save(model: nn.Module, folder: Path, tokenizer: Any, *, base_model: str) -> None:
    save_adapter(
        model,
        folder,
        base_model=base_model,
        peft_type="SEQ_CLS",
        card=adapter_card(base_model, LABELS, tokenizer.pad_token_id),
        tokenizer=tokenizer,
    )


def logits(model: nn.Module) -> torch.Tensor:
    model.eval()
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=IDS, attention_mask=MASK).logits
    return found


def assert_same_answers(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Tell rounding, which is what merging may change, from any wrong weight."""
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_folder_answers_as_the_trained_model(
    folders: dict[str, Path], tmp_path: Path, family: str, kind: str
) -> None:
    model, tokenizer = trained(str(folders[family]), make_adapter(kind=kind, dropout=0.1))
    expected = logits(model)
    save_classifier(merge_adapter(model), tmp_path, label_names=LABELS, tokenizer=tokenizer)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    if kind in ("none", "head"):  # there is nothing to merge, and nothing to round
        assert torch.equal(logits(loaded), expected)
    assert_same_answers(logits(loaded), expected)
    plain = AutoModelForSequenceClassification.from_pretrained(folders[family], num_labels=3)
    assert loaded.state_dict().keys() == plain.state_dict().keys()
    assert loaded.config.id2label == dict(enumerate(LABELS))
    assert loaded.config.label2id == {name: i for i, name in enumerate(LABELS)}


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("bert", {"rslora": True, "alpha": 3.0}),
        ("bert", {"freeze_a": True}),
        ("bert", {"modules_to_save": ("pooler", "layer.1.output.dense")}),
        ("distilbert", {"targets": ("all-linear",)}),
        ("gpt2", {"targets": ("c_attn",), "rslora": True}),
    ],
)
def test_every_way_to_adapt_can_be_merged(
    folders: dict[str, Path], family: str, kind: str, changes: dict[str, Any]
) -> None:
    model, _ = trained(str(folders[family]), make_adapter(kind=kind, dropout=0.1, **changes))
    expected = logits(model)
    merged = merge_adapter(model)
    assert_same_answers(logits(merged), expected)
    assert not [name for name in merged.state_dict() if "lora" in name or "modules_to_" in name]


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_peft_loads_an_adapter_folder_onto_the_base_model(
    folders: dict[str, Path], tmp_path: Path, family: str, kind: str
) -> None:
    model, tokenizer = trained(str(folders[family]), make_adapter(kind=kind, dropout=0.1))
    expected = logits(model)
    save(model, tmp_path, tokenizer, base_model=str(folders[family]))
    names = {path.name for path in tmp_path.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md"} <= names
    assert not names & {"config.json", "model.safetensors"}  # or it would be taken for a model
    base = AutoModelForSequenceClassification.from_pretrained(folders[family], num_labels=3)
    base.config.pad_token_id = tokenizer.pad_token_id
    loaded = peft.PeftModel.from_pretrained(base, str(tmp_path))
    assert torch.equal(logits(loaded), expected)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert (
        sum(value.numel() for value in saved.values()) == Layout.of(model.named_parameters()).size
    )


@pytest.mark.parametrize(
    "changes", [{"rslora": True}, {"freeze_a": True}, {"modules_to_save": ("pooler",)}]
)
def test_an_adapter_folder_holds_what_the_base_model_lacks(
    folders: dict[str, Path], tmp_path: Path, changes: dict[str, Any]
) -> None:
    model, tokenizer = trained(str(folders["bert"]), make_adapter(dropout=0.1, **changes))
    expected = logits(model)
    save(model, tmp_path, tokenizer, base_model=str(folders["bert"]))
    told = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (told["task_type"], told["inference_mode"]) == ("SEQ_CLS", True)
    assert told["target_modules"] == sorted(told["target_modules"])
    base = AutoModelForSequenceClassification.from_pretrained(folders["bert"], num_labels=3)
    loaded = peft.PeftModel.from_pretrained(base, str(tmp_path))
    assert torch.equal(logits(loaded), expected)


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize(
    "changes", [{}, {"targets": ("all-linear",)}, {"modules_to_save": ("pooler",)}]
)
def test_an_adapter_folder_holds_what_the_base_model_lacks_on_disk(
    tmp_path: Path, kind: str, changes: dict[str, Any]
) -> None:
    """A BERT of masked-language training has no pooler; each load would draw another one."""
    base = save_model("bert_mlm", tmp_path / "base")
    model, tokenizer = trained(str(base), make_adapter(kind=kind, dropout=0.1, **changes))
    expected = logits(model)
    assert frozen_and_new(model) == ([] if "modules_to_save" in changes else ["bert.pooler.dense"])
    save(model, tmp_path / "adapter", tokenizer, base_model=str(base))
    for seed in (1, 2):
        torch.manual_seed(seed)
        plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
        loaded = peft.PeftModel.from_pretrained(plain, str(tmp_path / "adapter"))
        assert_same_answers(logits(loaded), expected)


@pytest.mark.parametrize("kind", ["multi_label_classification", "regression"])
def test_a_folder_is_of_one_label_for_a_text_whatever_the_base_was(
    tmp_path: Path, kind: str
) -> None:
    base = save_model("bert", tmp_path / "base", problem_type=kind, num_labels=1)
    model, tokenizer = trained(str(base), make_adapter(kind="none"))
    folder = tmp_path / "out"
    save_classifier(model, folder, label_names=LABELS, tokenizer=tokenizer)
    scores = pipeline("text-classification", model=str(folder), top_k=None)(["raven heart"])[0]
    assert sum(row["score"] for row in scores) == pytest.approx(1.0)
    assert {row["label"] for row in scores} == set(LABELS)
    told = json.loads((folder / "config.json").read_text())
    assert told["problem_type"] == "single_label_classification"
    loaded = AutoModelForSequenceClassification.from_pretrained(folder)
    loss = loaded(input_ids=IDS, attention_mask=MASK, labels=torch.tensor([0, 2])).loss
    torch.testing.assert_close(loss, cross_entropy(logits(loaded), torch.tensor([0, 2])))


def test_the_tokenizer_comes_along(folders: dict[str, Path], tmp_path: Path) -> None:
    texts = ["raven heart", "an unknown abyss", ""]
    for name in ("tiny", str(folders["bert"]), str(folders["gpt2"])):
        model, tokenizer = trained(name, make_adapter(kind="none"))
        folder = tmp_path / Path(name).name
        save_classifier(model, folder, label_names=LABELS, tokenizer=tokenizer)
        loaded = AutoTokenizer.from_pretrained(folder)
        assert loaded(texts)["input_ids"] == tokenizer(texts)["input_ids"]
        assert loaded.pad_token_id == tokenizer.pad_token_id


def test_the_tokenizer_says_on_which_side_the_run_had_its_padding(tmp_path: Path) -> None:
    model, _ = trained("tiny", make_adapter(kind="none"))
    tokenizer = GemmaTokenizer()
    assert tokenizer.padding_side == "left"  # unless its file says otherwise
    tokenizer.padding_side = "right"
    save_classifier(model, tmp_path, label_names=LABELS, tokenizer=tokenizer)
    told = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert told["padding_side"] == "right"
    assert not [name for name in told if "local" in name]


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_is_a_model_to_train_that_answers_alike(tmp_path: Path, kind: str) -> None:
    model, tokenizer = trained("tiny", make_adapter(kind=kind, dropout=0.1))
    expected = logits(model)
    save_classifier(merge_adapter(model), tmp_path, label_names=LABELS, tokenizer=tokenizer)
    again = load_classifier(
        str(tmp_path),
        num_labels=len(LABELS),
        max_seq_len=16,
        seed=99,  # the head is the saved one, whatever the seed
        tokenizer=load_tokenizer(str(tmp_path), Path("unused")),
        cache_dir=Path("unused"),
    )
    assert_same_answers(logits(again), expected)
    assert Layout.of(again.named_parameters()).size == sum(p.numel() for p in again.parameters())


def test_tied_weights_are_written_once(tmp_path: Path) -> None:
    model, tokenizer = trained("tiny", make_adapter(dropout=0.1))
    save_classifier(merge_adapter(model), tmp_path, label_names=LABELS, tokenizer=tokenizer)
    written = load_file(tmp_path / "model.safetensors")
    assert written.keys() == {name for name, _ in model.named_parameters()}
    assert all(written[name].equal(p) for name, p in model.named_parameters())


def test_an_exported_tokenizer_reads_texts_as_they_were_read_in_training(
    tmp_path: Path, folders: dict[str, Path]
) -> None:
    model, tokenizer = trained(str(folders["bert"]), make_adapter(kind="lora"))
    text = "raven [SEP] ice [CLS] [MASK]"
    expected = plain_text_tokenizer(tokenizer).encode(text).ids
    assert tokenizer(text)["input_ids"] != expected
    save(model, tmp_path / "adapter", tokenizer, base_model=str(folders["bert"]))
    save_classifier(
        merge_adapter(model), tmp_path / "model", label_names=LABELS, tokenizer=tokenizer
    )
    for folder in ("adapter", "model"):
        read = AutoTokenizer.from_pretrained(tmp_path / folder)
        assert read(text)["input_ids"] == expected
