"""Exported language models: what others load from a folder answers as the trained model does."""

from pathlib import Path

import peft
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from scaling_fl.core.errors import UserError
from scaling_fl.core.vector import flatten_parameters
from scaling_fl.learning.models.adapter_card import causal_card
from scaling_fl.learning.models.adapters import adapt
from scaling_fl.learning.models.export import merge_adapter, save_adapter, save_causal
from scaling_fl.learning.options import Load
from tests.causal_models import bpe_tokenizer, tiny_llama
from tests.tiny_models import make_adapter

# peft 0.21.2 asks transformers 5.23 by a name that goes away in its version 6.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

CASES = [
    (True, {"targets": ("all-linear",)}),
    (True, {"kind": "dora"}),
    (False, {"targets": ("all-linear",)}),
    (False, {"modules_to_save": ("lm_head",)}),
    (False, {"modules_to_save": ("embed_tokens",)}),
]


def saved(folder: Path, *, is_tied: bool) -> Path:
    """Save a Llama whose head has the weights of its embeddings, or weights of its own."""
    model = tiny_llama()
    model.config.tie_word_embeddings = is_tied
    model.tie_weights()
    model.save_pretrained(folder)
    return folder


def trained(base: Path, **changes: object) -> nn.Module:
    """Adapt a model, and give its vector values that training might give it."""
    model = adapt(
        AutoModelForCausalLM.from_pretrained(base), make_adapter(**changes), heads=[], seed=1
    )
    _, vector = flatten_parameters(model)
    vector.add_(torch.randn(vector.shape, generator=torch.Generator().manual_seed(3)), alpha=0.2)
    return model


def logits(model: nn.Module) -> Tensor:
    with torch.inference_mode():
        found: Tensor = model.eval()(input_ids=torch.arange(3, 19).reshape(2, 8)).logits
    return found


@pytest.mark.parametrize(("is_tied", "changes"), CASES)
def test_a_merged_folder_answers_as_the_trained_model(
    tmp_path: Path, is_tied: bool, changes: dict[str, object]
) -> None:
    base = saved(tmp_path / "base", is_tied=is_tied)
    model, tokenizer = trained(base, **changes), bpe_tokenizer()
    expected = logits(model)
    save_causal(merge_adapter(model), tmp_path / "out", tokenizer=tokenizer)
    found = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, logits(AutoModelForCausalLM.from_pretrained(base)), atol=0.1)
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "a question</s>"  # whose end is a token, as in training
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]


@pytest.mark.parametrize(("is_tied", "changes"), CASES)
def test_peft_loads_an_adapter_folder_onto_the_base(
    tmp_path: Path, is_tied: bool, changes: dict[str, object]
) -> None:
    base = saved(tmp_path / "base", is_tied=is_tied)
    model = trained(base, **changes)
    expected = logits(model)
    save_adapter(
        model,
        tmp_path / "out",
        base_model=str(base),
        peft_type="CAUSAL_LM",
        card=causal_card(str(base), Load()),
        tokenizer=bpe_tokenizer(),
        splits_special_tokens=False,
    )
    plain = AutoModelForCausalLM.from_pretrained(base)
    found = logits(peft.PeftModel.from_pretrained(plain, tmp_path / "out"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens"])
def test_weights_that_two_modules_share_are_not_trained_beside_an_adapter(
    tmp_path: Path, name: str
) -> None:
    base = saved(tmp_path, is_tied=True)
    with pytest.raises(UserError, match=rf"weights of their own .*, got [\w.]*{name}, whose"):
        trained(base, modules_to_save=(name,))
