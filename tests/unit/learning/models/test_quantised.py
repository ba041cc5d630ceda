"""Bases of 4, 8 and 16 bits: they train as well after an evaluation, and are what they store."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from scaling_fl.core.vector import Layout
from scaling_fl.learning.models import quantised
from scaling_fl.learning.models.activations import recompute_activations
from scaling_fl.learning.models.adapters import adapt, frozen_digest
from scaling_fl.learning.models.causal import load_causal, load_causal_tokenizer
from scaling_fl.learning.models.outline import outline_causal
from scaling_fl.learning.models.quantised import dequantised, num_weights, stored_bytes
from scaling_fl.learning.options import Load
from scaling_fl.learning.task import Batch, BatchLoss
from scaling_fl.learning.training.local import LocalTrainer
from tests.tiny_models import make_adapter

# peft 0.21.2 asks transformers 5.23 by a name that goes away in its version 6.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

LOADS = {
    "4": Load(bits=4),
    "4, one scale": Load(bits=4, double_quantisation=False),
    "8": Load(bits=8),
    "16": Load(bits=16),
    "32": Load(bits=32),
}
IDS = torch.randint(0, 250, (3, 4, 12), generator=torch.Generator().manual_seed(1))
"""The tokens of three batches."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Llama whose linear layers have 180,224 weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        initializer_range=0.2,
    )
    place = tmp_path_factory.mktemp("causal")
    LlamaForCausalLM(config).save_pretrained(place)
    return place


def load(name: Path | str, how: Load) -> Any:
    model = AutoModelForCausalLM.from_pretrained(name, **quantised.loading_options(how))
    quantised.settle(model)
    return model


def adapted(name: Path | str, how: Load, **changes: Any) -> nn.Module:
    return adapt(load(name, how), make_adapter(**changes), heads=[], seed=1)


def loss(model: nn.Module, batch: Batch) -> BatchLoss:
    ids = batch.tensors["input_ids"]
    logits = model(input_ids=ids).logits[:, :-1]
    mean = cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())
    return BatchLoss(mean, len(ids), {})


def batches() -> list[Batch]:
    return [Batch({"input_ids": ids}, torch.arange(len(ids)).numpy()) for ids in IDS]


def train(trainer: LocalTrainer, received: Tensor) -> Tensor:
    trainer.train(received, batches(), learning_rate=0.01, seed=7)
    return trainer.vector.clone()


def evaluate(trainer: LocalTrainer) -> Tensor:
    trainer.model.eval()
    with torch.inference_mode():
        return torch.stack([loss(trainer.model, batch).mean for batch in batches()])


@pytest.mark.parametrize(
    ("bits", "kind"),
    [*((bits, "lora") for bits in LOADS), *((bits, "dora") for bits in LOADS if bits != "8")],
)
def test_an_evaluation_between_trainings_changes_nothing(
    folder: Path, bits: str, kind: str
) -> None:
    found, losses = [], []
    for evaluates in (False, True):
        trainer = LocalTrainer(adapted(folder, LOADS[bits], kind=kind), loss, optimiser="adamw")
        vectors = [trainer.vector.clone()]
        for _ in range(2):
            losses += [evaluate(trainer).mean()] * evaluates
            vectors.append(train(trainer, vectors[-1]))
        losses += [evaluate(trainer).mean()] * evaluates
        found.append(vectors)
    without, between = found
    assert losses[0] > losses[1] > losses[2]
    assert not any(a.equal(b) for a, b in pairwise(without))
    assert all(a.equal(b) for a, b in zip(without, between, strict=True))


@pytest.mark.parametrize("bits", LOADS)
def test_what_is_trained_is_in_fp32_and_the_same_with_all_bits(folder: Path, bits: str) -> None:
    model = adapted(folder, LOADS[bits], targets=("all-linear",))
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    plain = adapted(folder, LOADS["32"], targets=("all-linear",))
    assert Layout.of(model.named_parameters()) == Layout.of(plain.named_parameters())
    layers = {name.split(".")[-4] for name in Layout.of(model.named_parameters()).names}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.mark.parametrize(
    ("bits", "each"),
    [("4", 4 + 8 / 64 + 32 / (64 * 256)), ("4, one scale", 4.5), ("16", 16), ("32", 32)],
)
def test_the_bytes_are_those_of_the_paper(folder: Path, bits: str, each: float) -> None:
    """Source: arXiv 2305.14314, section 3: 0.127 bits for the scales, 0.5 without the second."""
    model = load(folder, LOADS[bits])
    linear = 4 * 128 * 128 + 3 * 128 * 256
    rest = 2 * 256 * 128 + 3 * 128
    of_rest = 2 if bits == "16" else 4
    offsets = 7 * 4 if bits == "4" else 0  # the mean scale of each layer
    assert stored_bytes(model, LOADS[bits]) == linear * each / 8 + rest * of_rest + offsets
    assert sum(map(num_weights, model.parameters())) == linear + rest


@pytest.mark.parametrize("bits", LOADS)
def test_an_outline_has_the_bytes_of_the_model_to_come(folder: Path, bits: str) -> None:
    how = LOADS[bits]
    outline = adapt(
        outline_causal(folder / "config.json"),
        make_adapter(targets=("all-linear",)),
        heads=[],
        seed=1,
    )
    whole = adapted(folder, how, targets=("all-linear",))
    assert stored_bytes(outline, how) == stored_bytes(whole, how)


@pytest.mark.parametrize("bits", ["4", "8", "16"])
def test_the_tiny_model_is_loaded_with_its_bits(
    bits: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tiny, again, plain = (load_tiny(LOADS[name]) for name in (bits, bits, "32"))
    assert frozen_digest(tiny) == frozen_digest(again)
    assert stored_bytes(tiny, LOADS[bits]) < stored_bytes(plain, LOADS["32"])
    assert capfd.readouterr() == ("", "")


def load_tiny(how: Load) -> nn.Module:
    place = Path("unused")
    model = load_causal(
        "tiny",
        max_seq_len=16,
        seed=3,
        tokenizer=load_causal_tokenizer("tiny", place),
        cache_dir=place,
        packing=False,
        load=how,
    )
    return model.requires_grad_(False)


@pytest.mark.parametrize("name", ["4", "4, one scale", "8"])
def test_the_hash_of_a_base_is_of_its_scales_too_and_stays(folder: Path, name: str) -> None:
    model, again = (load(folder, LOADS[name]).requires_grad_(False) for _ in range(2))
    found = frozen_digest(model)
    model.eval()
    with torch.inference_mode():
        model(input_ids=IDS[0])
    assert frozen_digest(model) == found == frozen_digest(again)
    stored = dict(quantised.stored_tensors(model))
    scale = next(stored[name] for name in stored if name.endswith(("absmax", "SCB")))
    with torch.inference_mode():
        scale[0] += 1
    assert frozen_digest(model) != found


@pytest.mark.parametrize("name", LOADS)
def test_a_base_moves_with_its_scales(folder: Path, name: str) -> None:
    model = adapted(folder, LOADS[name])
    here = dict(quantised.stored_tensors(model))
    there = dict(quantised.stored_tensors(quantised.placed(model, torch.device("meta"))))
    assert {tensor.device.type for tensor in there.values()} == {"meta"}
    assert {n: (t.shape, t.dtype) for n, t in there.items()} == {
        n: (t.shape, t.dtype) for n, t in here.items()
    }


def test_the_hashes_of_all_bits_differ(folder: Path) -> None:
    found = {frozen_digest(load(folder, how).requires_grad_(False)) for how in LOADS.values()}
    assert len(found) == len(LOADS)


@pytest.mark.parametrize("bits", ["4", "4, one scale", "8", "16"])
def test_a_dequantised_base_answers_as_the_quantised_one(folder: Path, bits: str) -> None:
    model = load(folder, LOADS[bits]).eval()
    with torch.inference_mode():
        expected = model(input_ids=IDS[0]).logits.float()
        plain = dequantised(model)
        found = plain(input_ids=IDS[0]).logits
    assert {p.dtype for p in plain.parameters()} == {torch.float32}
    # NF4 computes with its weights in fp32; the others round the inputs of their layers, too.
    largest = {"4": 1e-5, "4, one scale": 1e-5, "8": 0.05, "16": 0.05}[bits]
    assert float((found - expected).norm() / expected.norm()) < largest


@pytest.mark.parametrize("bits", ["4", "32"])
def test_recomputed_activations_give_the_same_losses_and_gradients(folder: Path, bits: str) -> None:
    losses, vectors = [], []
    for change in (lambda model: None, recompute_activations):
        model = adapted(folder, LOADS[bits], dropout=0.1, targets=("all-linear",))
        change(model)
        trainer = LocalTrainer(model, loss, optimiser="sgd")
        result = trainer.train(trainer.vector.clone(), batches(), learning_rate=0.1, seed=7)
        losses.append(result.loss)
        vectors.append(trainer.vector.clone())
    assert losses[0] == losses[1]
    assert vectors[0].equal(vectors[1])
