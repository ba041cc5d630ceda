"""Adapters: what is trained is exactly the adapter and what is saved whole, in every family."""

from pathlib import Path

import peft
import pytest
import torch
import transformers
from torch import nn

from scaling_fl.core.errors import UserError
from scaling_fl.core.vector import Layout
from scaling_fl.learning.models import adapters
from scaling_fl.learning.models.adapters import Adapter, frozen_digest
from scaling_fl.learning.task import Batch
from scaling_fl.learning.tasks.classification.labels import beside_the_encoder
from scaling_fl.learning.tasks.classification.scoring import loss
from scaling_fl.learning.training.local import LocalTrainer
from tests.tiny_models import (
    FAMILIES,
    make_adapter,
    make_batch,
    make_classification,
    save_model,
)

HEADS = {
    "bert": ["classifier"],
    "distilbert": ["pre_classifier", "classifier"],
    "albert": ["classifier"],
    "roberta": ["classifier"],
    "gpt2": ["score"],
    "llama": ["score"],
}
PAIRS = {"bert": 4, "distilbert": 4, "albert": 2, "roberta": 4, "gpt2": 8, "llama": 4}
"""Adapted layers: queries and values of two layers; shared by ALBERT's two; all of GPT-2's."""


def load(folder: Path, seed: int = 5) -> nn.Module:
    return make_classification(str(folder), seed=seed).load_model()


def adapt(model: nn.Module, adapter: Adapter, *, seed: int) -> nn.Module:
    return adapters.adapt(model, adapter, heads=beside_the_encoder(model), seed=seed)


def some_batch() -> Batch:
    ids = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 10]])
    return make_batch(ids, torch.ones_like(ids), torch.tensor([0, 2]))


def logits(model: nn.Module) -> torch.Tensor:
    inputs = dict(some_batch().tensors)
    del inputs["labels"]
    model.eval()
    with torch.no_grad():
        found: torch.Tensor = model(**inputs).logits
    return found


def trainable(model: nn.Module) -> list[str]:
    return [name for name, p in model.named_parameters() if p.requires_grad]


def size_of(modules: list[nn.Module]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("kind", ["lora", "dora", "head"])
def test_the_vector_is_the_adapter_and_the_heads(
    folders: dict[str, Path], family: str, kind: str
) -> None:
    plain = load(folders[family])
    heads = size_of([plain.get_submodule(name) for name in HEADS[family]])
    model = adapt(load(folders[family]), make_adapter(kind=kind), seed=1)
    layout = Layout.of(model.named_parameters())
    pairs = [p for name, p in model.named_parameters() if ".lora_" in name]
    assert len(pairs) == {"head": 0, "lora": 2, "dora": 3}[kind] * PAIRS[family]
    assert layout.size == heads + size_of([nn.ParameterList(pairs)])
    for name in trainable(model):
        assert ".lora_" in name or name.split(".")[0] in HEADS[family]


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("kind", ["lora", "dora", "head"])
def test_training_moves_the_vector_and_nothing_else(
    folders: dict[str, Path], family: str, kind: str
) -> None:
    model = adapt(load(folders[family]), make_adapter(kind=kind, dropout=0.1), seed=1)
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    before = frozen_digest(model)
    trainer = LocalTrainer(model, loss, optimiser="adamw", weight_decay=0.1)
    start = trainer.vector.clone()
    trainer.train(start, [some_batch()] * 3, learning_rate=1e-2, seed=1)
    for name, view in trainer.layout.views(trainer.vector - start).items():
        assert view.any(), name
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen)
    assert frozen_digest(model) == before


def test_a_fresh_adapter_changes_no_output(folders: dict[str, Path]) -> None:
    plain = logits(load(folders["bert"]))
    assert torch.equal(logits(adapt(load(folders["bert"]), make_adapter(), seed=1)), plain)
    dora = logits(adapt(load(folders["bert"]), make_adapter(kind="dora"), seed=1))
    assert torch.allclose(dora, plain, atol=1e-6)


def test_the_output_is_that_of_pefts_own_model(folders: dict[str, Path]) -> None:
    ours = adapt(load(folders["llama"]), make_adapter(alpha=3.0, rslora=True), seed=1)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    scale = 3.0 / 4**0.5
    base = load(folders["llama"])
    with torch.no_grad():
        for name, module in base.named_modules():
            if name.endswith(("q_proj", "v_proj")):
                layer = ours.get_submodule(name)
                module.weight += scale * (
                    layer.lora_B["default"].weight @ layer.lora_A["default"].weight
                )
    assert torch.allclose(logits(ours), logits(base), atol=1e-5)


def test_the_first_values_depend_on_the_seed_alone(folders: dict[str, Path]) -> None:
    def vector(seed: int) -> torch.Tensor:
        torch.manual_seed(torch.randint(1000, ()).item())
        model = adapt(load(folders["bert"]), make_adapter(), seed=seed)
        return torch.cat([p.flatten() for p in model.parameters() if p.requires_grad])

    assert torch.equal(vector(1), vector(1))
    assert not torch.equal(vector(1), vector(2))


def test_without_a_only_b_is_trained(folders: dict[str, Path]) -> None:
    names = trainable(adapt(load(folders["bert"]), make_adapter(freeze_a=True), seed=1))
    assert not any("lora_A" in name for name in names)
    assert sum("lora_B" in name for name in names) == 4


def test_modules_to_save_are_trained_whole(folders: dict[str, Path]) -> None:
    for kind in ("lora", "head"):
        adapter = make_adapter(kind=kind, modules_to_save=("pooler", "classifier"))
        model = adapt(load(folders["bert"]), adapter, seed=1)
        whole = [name for name in trainable(model) if ".lora_" not in name]
        assert len(whole) == 4
        assert {name.split(".")[1] for name in whole if name.startswith("bert.")} == {"pooler"}


def test_targets_are_chosen_by_name(folders: dict[str, Path]) -> None:
    def adapted(*targets: str) -> set[str]:
        model = adapt(load(folders["bert"]), make_adapter(targets=targets), seed=1)
        return {name.split(".lora_")[0] for name in trainable(model) if ".lora_" in name}

    assert adapted("key") == {f"bert.encoder.layer.{i}.attention.self.key" for i in (0, 1)}
    assert adapted("layer.1.attention.self.query") == {"bert.encoder.layer.1.attention.self.query"}
    assert len(adapted("all-linear")) == 2 * 6 + 1  # and the pooler
    assert len(adapted("attention.output.dense", "query")) == 4


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        (
            make_adapter(targets=("query", "nosuch")),
            r"adapter\.targets must .* 'nosuch', .* dense, key",
        ),
        (make_adapter(targets=("classifier",)), r"adapter\.targets must .* 'classifier'"),
        (make_adapter(modules_to_save=("nosuch",)), r"adapter\.modules_to_save must .* classifier"),
        (make_adapter(kind="head", modules_to_save=("nosuch",)), r"adapter\.modules_to_save must"),
    ],
)
def test_a_name_that_fits_nothing_is_told_with_those_that_do(
    folders: dict[str, Path], adapter: Adapter, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        adapt(load(folders["bert"]), adapter, seed=1)


def targets_of(folder: Path) -> set[str]:
    model = adapt(load(folder), make_adapter(), seed=1)
    return {n.split(".lora_")[0].rpartition(".")[2] for n in trainable(model) if ".lora_" in n}


def test_families_that_we_do_not_know_get_pefts_targets_or_all_linear_layers(
    tmp_path: Path,
) -> None:
    assert targets_of(save_model("deberta-v2", tmp_path / "1")) == {"query_proj", "value_proj"}
    assert targets_of(save_model("mpnet", tmp_path / "2")) == {"q", "k", "v", "o", "dense"}
    # The projections of XLNet's attention are no layers, those of what follows are.
    assert targets_of(save_model("xlnet", tmp_path / "3")) == {"layer_1", "layer_2"}


def test_a_model_without_linear_layers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"adapter\.kind must be none or head for .* ibert, whose"):
        adapt(load(save_model("ibert", tmp_path)), make_adapter(), seed=1)
    adapt(load(save_model("ibert", tmp_path)), make_adapter(kind="head"), seed=1)


def test_tied_weights_are_frozen_and_never_counted() -> None:
    """The base code of PFL-DocVQA took T5's tied embeddings for trainable: 197 MB a message."""
    config = transformers.T5Config(
        vocab_size=32, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, num_labels=3
    )
    model = transformers.T5ForSequenceClassification(config)
    tied = [name for name in model.state_dict() if "embed_tokens" in name]
    assert tied
    assert not set(tied) <= {name for name, _ in model.named_parameters()}
    adapted = adapt(model, make_adapter(targets=("q", "v")), seed=1)
    layout = Layout.of(adapted.named_parameters())
    head = 16 * 16 + 16 + 16 * 3 + 3
    # One encoder layer with one attention and one decoder layer with two, q and v of each.
    assert layout.size == 3 * 2 * (4 * 16 + 16 * 4) + head
    assert not [name for name in layout.names if "embed" in name or "shared" in name]


def test_the_published_size_of_gpt2() -> None:
    """FLASC's GPT-2 with rank 16 on all linear layers and 20 labels has 2,374,656 parameters."""
    config = transformers.GPT2Config(num_labels=20, pad_token_id=0)
    with torch.device("meta"):
        model = transformers.GPT2ForSequenceClassification(config)
        adapted = adapt(model, make_adapter(rank=16), seed=1)
    assert Layout.of(adapted.named_parameters()).size == 2_374_656


def test_the_digest_sees_every_frozen_weight(folders: dict[str, Path]) -> None:
    model = adapt(load(folders["bert"]), make_adapter(), seed=1)
    before = frozen_digest(model)
    with torch.no_grad():
        model.get_parameter("bert.embeddings.word_embeddings.weight")[3, 3] += 1e-6
    assert frozen_digest(model) != before


def test_peft_is_what_makes_the_layers(folders: dict[str, Path]) -> None:
    model = adapt(load(folders["bert"]), make_adapter(), seed=1)
    layer = model.get_submodule("bert.encoder.layer.0.attention.self.query")
    assert isinstance(layer, peft.tuners.lora.LoraLayer)


def test_a_module_inside_a_saved_one_is_saved_once(folders: dict[str, Path]) -> None:
    model = adapt(
        load(folders["roberta"]), make_adapter(modules_to_save=("out_proj", "dense")), seed=1
    )
    heads = [name for name in trainable(model) if name.startswith("classifier")]
    assert len(heads) == 4
    assert not [name for name in heads if name.count("modules_to_save") > 1]


def test_saving_all_that_has_targets_is_told(folders: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"adapter\.modules_to_save must leave a target"):
        adapt(load(folders["bert"]), make_adapter(modules_to_save=("attention",)), seed=1)
