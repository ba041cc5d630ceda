"""Models of several families: each trains, ignores its padding, and is refused in one sentence."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import BPE

from scaling_fl.core.errors import UserError
from scaling_fl.learning.models.activations import activation_bytes
from scaling_fl.learning.models.loading import load_classifier, load_tokenizer
from scaling_fl.learning.task import Batch
from scaling_fl.learning.tasks.classification.scoring import count, loss, metrics
from scaling_fl.learning.text.tokenised import TokenisedExamples
from scaling_fl.learning.training.local import LocalTrainer
from tests.tiny_models import (
    DECODERS,
    FAMILIES,
    MORE_FAMILIES,
    make_batch,
    make_classification,
    make_tokenizer,
    save_model,
)

TEXTS = ["raven chamber heart", "ice", "abyss cult dream creature unheard", "misery"]
LABELS = np.array([0, 1, 2, 1])
SHOW_HEAD = """
import sys, torch
from scaling_fl.learning.models.loading import load_classifier, load_tokenizer
torch.set_num_threads(int(sys.argv[2]))
torch.manual_seed(int(sys.argv[3]))
tokenizer = load_tokenizer(sys.argv[1], None)
model = load_classifier(
    sys.argv[1], num_labels=3, max_seq_len=16, seed=5, tokenizer=tokenizer, cache_dir=None
)
print(model.classifier.weight.flatten().tolist())
"""


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return save_model("bert", tmp_path / "bert")


def load(folder: Path | str, **changes: Any) -> tuple[Any, torch.nn.Module]:
    tokenizer = load_tokenizer(str(folder), Path("unused"))
    options: dict[str, Any] = {"num_labels": 3, "max_seq_len": 16, "seed": 5} | changes
    model = load_classifier(str(folder), tokenizer=tokenizer, cache_dir=Path("unused"), **options)
    return tokenizer, model


def batch_of_texts(tokenizer: Any) -> Batch:
    rows = tokenizer(TEXTS)["input_ids"]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    examples = TokenisedExamples(
        token_ids=np.concatenate(rows).astype(np.int32),
        offsets=offsets,
        labels=LABELS,
        max_seq_len=16,
        pad_token_id=tokenizer.pad_token_id,
        padding_side=tokenizer.padding_side,
    )
    return examples.batch(np.arange(len(TEXTS)))


def logits_of(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        inputs = {name: batch.tensors[name] for name in ("input_ids", "attention_mask")}
        return model(**inputs).logits


@pytest.mark.parametrize("family", ["tiny", *FAMILIES])
def test_every_family_trains_a_step_and_is_evaluated(family: str, tmp_path: Path) -> None:
    name = family if family == "tiny" else save_model(family, tmp_path / family)
    tokenizer, model = load(name)
    batch = batch_of_texts(tokenizer)
    trainer = LocalTrainer(model, loss, optimiser="adamw")
    start = trainer.vector.clone()
    first = trainer.train(start, [batch] * 20, learning_rate=1e-2, seed=1)
    assert first.num_steps == 20
    assert torch.isfinite(trainer.vector).all()
    model.eval()
    with torch.inference_mode():
        counts = count(trainer.model, batch)
    found = metrics(counts, ["a", "b", "c"], per_class=False)
    assert found["loss"] < first.loss
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("family", ["tiny", *FAMILIES, *MORE_FAMILIES])
def test_more_padding_does_not_change_an_answer(family: str, tmp_path: Path) -> None:
    name = family if family == "tiny" else save_model(family, tmp_path / family)
    tokenizer, model = load(name)
    batch = batch_of_texts(tokenizer)
    ids, mask, labels = batch.tensors.values()
    more = (5, 0) if tokenizer.padding_side == "left" else (0, 5)
    wide = make_batch(
        torch.nn.functional.pad(ids, more, value=tokenizer.pad_token_id),
        torch.nn.functional.pad(mask, more),
        labels,
    )
    together = logits_of(model, batch)
    assert torch.allclose(logits_of(model, wide), together, rtol=0, atol=1e-6)
    # One text on its own has no padding at all.
    for row, length in enumerate(mask.sum(1).tolist()):
        one = slice(row, row + 1)
        alone = make_batch(ids[one, mask[row] == 1], torch.ones(1, length), labels[one])
        assert torch.allclose(logits_of(model, alone), together[row], rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", DECODERS)
def test_decoders_pad_with_their_end_of_text(family: str, tmp_path: Path) -> None:
    tokenizer, model = load(save_model(family, tmp_path / family))
    assert tokenizer.pad_token == "</s>"
    assert model.config.pad_token_id == tokenizer.eos_token_id


def test_the_head_depends_on_the_seed_alone(bert: Path) -> None:
    heads = {seed: load(bert, seed=seed)[1].classifier.weight for seed in (5, 6)}
    torch.rand(7)
    assert torch.equal(load(bert, seed=5)[1].classifier.weight, heads[5])
    assert not torch.equal(heads[5], heads[6])


@pytest.mark.slow
def test_the_head_is_the_same_in_every_process(bert: Path) -> None:
    elsewhere = subprocess.run(
        [sys.executable, "-c", SHOW_HEAD, str(bert), "2", "99"],
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    head = load(bert, seed=5)[1].classifier.weight
    assert json.loads(elsewhere.stdout) == head.flatten().tolist()


def test_the_encoder_is_the_saved_one(bert: Path) -> None:
    saved = load_file(bert / "model.safetensors")
    model = load(bert)[1].state_dict()
    assert all(torch.equal(model[f"bert.{name}"], value) for name, value in saved.items())


@pytest.mark.parametrize(("num_labels", "is_kept"), [(3, True), (4, False)])
def test_a_saved_head_is_kept_when_it_fits_the_labels(
    bert: Path, tmp_path: Path, num_labels: int, is_kept: bool
) -> None:
    tokenizer, model = load(bert, seed=1)
    model.save_pretrained(tmp_path / "classifier")
    tokenizer.save_pretrained(tmp_path / "classifier")
    again = load(tmp_path / "classifier", seed=2, num_labels=num_labels)[1]
    assert again.classifier.weight.shape[0] == num_labels
    assert is_kept == torch.equal(again.classifier.weight, model.classifier.weight)
    fresh = load(bert, seed=2, num_labels=num_labels)[1].classifier.weight
    assert is_kept != torch.equal(again.classifier.weight, fresh)


@pytest.mark.parametrize(
    ("family", "longest"), [("bert", 64), ("roberta", 62), ("ibert", 62), ("gpt2", 64)]
)
def test_a_text_longer_than_the_positions_is_refused(
    family: str, longest: int, tmp_path: Path
) -> None:
    folder = save_model(family, tmp_path / family)
    with pytest.raises(UserError, match=f"must be at most {longest}, .* got {longest + 1}; lower"):
        load(folder, max_seq_len=longest + 1)
    tokenizer, model = load(folder, max_seq_len=longest)
    ids = torch.full((1, longest), len(tokenizer) - 1)
    assert logits_of(model, make_batch(ids, torch.ones_like(ids), ids[:, 0])).isfinite().all()


@pytest.mark.parametrize("family", ["bart", "gpt2", "t5", "xlnet"])
def test_the_memory_of_a_batch_is_counted_where_heads_look_for_a_token(
    family: str, tmp_path: Path
) -> None:
    task = make_classification(str(save_model(family, tmp_path)))
    model, sizes = task.load_model(), (1, 3)
    one, three = (activation_bytes(model, task.loss, task.largest_batch(size)) for size in sizes)
    assert 0 < one < three


def test_xlnet_has_no_longest_text_and_reads_the_last_position(tmp_path: Path) -> None:
    assert load(save_model("xlnet", tmp_path), max_seq_len=5000)[0].padding_side == "left"
    assert load(save_model("gemma", tmp_path / "gemma"))[0].padding_side == "right"


def test_a_tokenizer_is_saved_without_what_a_first_look_has_cut(bert: Path, tmp_path: Path) -> None:
    tokenizer, _ = load(bert)
    tokenizer.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "tokenizer.json").read_text())
    assert (saved["truncation"], saved["padding"]) == (None, None)


@pytest.mark.parametrize(
    ("family", "changes", "reason"),
    [
        ("ibert", {"quant_mode": True}, r"answer by its weights alone, .* \(I-BERT: quant_mode\)"),
        (
            "t5",
            {"eos_token_id": 99},
            r"classify a text by itself, and fails on one \(\w+Error: .*\)",
        ),
    ],
)
def test_a_model_that_cannot_classify_a_text_is_told_in_one_line(
    family: str, changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    folder = save_model(family, tmp_path)
    other_config(**changes)(folder)
    with pytest.raises(UserError, match=reason) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_half_of_a_model_is_refused(tmp_path: Path) -> None:
    """Those that embed sentences are often T5's encoder alone."""
    folder = save_model("t5", tmp_path)
    transformers.T5EncoderModel.from_pretrained(folder).save_pretrained(folder)
    with pytest.raises(UserError, match=r"its encoder and its decoder .* such as transformer\.dec"):
        load(folder)


def test_a_model_that_draws_without_a_seed_is_refused(tmp_path: Path) -> None:
    """BigBird draws which positions see each other from a generator that nobody seeds."""
    config = transformers.BigBirdConfig(
        vocab_size=14,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        block_size=1,
    )
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="must answer a text twice alike"):
        load(tmp_path)


def only_the_old_format(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")  # it is not even opened


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:3000])


def weights_of_another_kind(folder: Path) -> None:
    other = save_model("gpt2", folder.parent / "other")
    shutil.copy(other / "model.safetensors", folder)


def other_config(**changes: Any) -> Any:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return change


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("token*"):
        path.unlink()


def tokenizer_without_special_tokens(folder: Path) -> None:
    backend = make_tokenizer().backend_tokenizer
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)


def tokenizer_that_makes_no_tokens(folder: Path) -> None:
    backend = Tokenizer(BPE({"[PAD]": 0, "q": 1, "z": 2}, []))  # nothing that is in a text
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]")
    tokenizer.save_pretrained(folder)


def tokenizer_of_more_tokens(folder: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([f"word{i}" for i in range(5)])
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (only_the_old_format, "no file named model.safetensors"),
        (cut_weights, "deserializing header"),
        (weights_of_another_kind, "must hold all weights of its encoder in the shapes"),
        (other_config(hidden_size=32), "must hold all weights of its encoder in the shapes"),
        (other_config(num_hidden_layers=3), "lacks 16, such as bert.encoder.layer.2"),
        (broken_config, "not a valid JSON file"),
        (other_config(model_type="vit"), "for this kind of AutoModel"),
        (other_config(model_type="own", auto_map={"AutoConfig": "own.Own"}), "custom code"),
        (without_tokenizer, "has no fast tokenizer; save one beside it"),
        (tokenizer_without_special_tokens, "must have a padding, end-of-text or unknown token"),
        (tokenizer_that_makes_no_tokens, "must make tokens of a text, and makes none of"),
        (tokenizer_of_more_tokens, "has embeddings for 14 tokens and a tokenizer of 19"),
    ],
)
def test_a_model_that_cannot_be_used_is_told_in_one_line(
    bert: Path, spoil: Any, reason: str
) -> None:
    spoil(bert)
    with pytest.raises(UserError, match=re.escape(reason)) as caught:
        load(bert)
    assert "\n" not in str(caught.value)
    assert str(bert) in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "~/nothing-here", "a/b/c"])
def test_a_folder_that_is_not_there_is_told_as_such(name: str) -> None:
    with pytest.raises(UserError, match="must be a folder that exists, got"):
        load_tokenizer(name, Path("unused"))
