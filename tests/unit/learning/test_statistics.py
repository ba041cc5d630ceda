"""What clients compute for merges: against fp64 and real models, example by example."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scaling_fl.core.errors import UserError
from scaling_fl.core.linears import linears_of
from scaling_fl.core.vector import Layout
from scaling_fl.learning.models.adapters import adapt
from scaling_fl.learning.statistics import fisher, grams
from scaling_fl.learning.task import Batch, BatchLoss, LossFunction, MakeStatistic
from scaling_fl.learning.tasks.classification.labels import beside_the_encoder
from scaling_fl.learning.tasks.classification.scoring import loss as classify
from tests.tiny_models import FAMILIES, make_adapter, make_batch, make_classification, save_model


def squared_error(model: nn.Module, batch: Batch) -> BatchLoss:
    errors = model(batch.tensors["x"]) - batch.tensors["y"]
    return BatchLoss(errors.square().sum(1).mean(), len(batch), {})


def small() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Dropout(0.5), nn.Linear(3, 2, bias=False))


def points(count: int) -> list[Batch]:
    rng = torch.Generator().manual_seed(1)
    return [
        Batch(
            {"x": torch.randn(1, 4, generator=rng), "y": torch.randn(1, 2, generator=rng)},
            np.array([index]),
        )
        for index in range(count)
    ]


def compute(
    make: MakeStatistic, model: nn.Module, loss: LossFunction, examples: list[Batch]
) -> Tensor:
    statistic = make(model)
    found = statistic.compute(model, loss, examples)
    assert found.shape == (statistic.size,)
    assert found.dtype == torch.float32
    return found.double()


def test_fisher_information_is_the_mean_of_the_squared_gradients_of_the_examples() -> None:
    """By the derivatives written out; the square of a batch's gradient would be another."""
    model, examples = small(), points(7)
    found = compute(fisher, model, squared_error, examples)
    first, last = (model[index].weight.double().detach() for index in (0, 3))  # type: ignore[index]
    bias = model[0].bias.double().detach()  # type: ignore[index]
    squares, gradients = [], []
    for example in examples:
        x, y = (example.tensors[name][0].double() for name in "xy")
        hidden = torch.tanh(first @ x + bias)
        error = 2 * (last @ hidden - y)
        inner = (last.T @ error) * (1 - hidden**2)
        parts = [torch.outer(inner, x), inner, torch.outer(error, hidden)]
        gradients.append(torch.cat([part.flatten() for part in parts]))
        squares.append(gradients[-1].square())
    expected = torch.stack(squares).mean(0)
    exponent, values = found[0], found[1:]
    assert 0.5 <= values.norm() <= 1
    assert torch.allclose(values * 2**exponent, expected, rtol=1e-4)
    assert not torch.allclose(expected, torch.stack(gradients).mean(0).square(), rtol=0.1)


def test_gram_matrices_are_those_of_the_inputs_of_each_layer() -> None:
    model, examples = small(), points(7)
    found = compute(grams, model, squared_error, examples)
    x = torch.cat([example.tensors["x"] for example in examples]).double()
    layer = model[0].double()  # type: ignore[index]
    hidden = torch.tanh(layer(x)).detach()
    for inputs, part in ((x, found[:11]), (hidden, found[11:])):
        above = torch.triu_indices(inputs.shape[1], inputs.shape[1])
        expected = (inputs.T @ inputs / len(inputs))[above[0], above[1]]
        assert torch.allclose(part[1:] * 2 ** part[0], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("make", [fisher, grams])
def test_a_statistic_leaves_model_and_randomness_as_they_are(make: MakeStatistic) -> None:
    model = small()
    model.train()
    model[0].eval()  # type: ignore[index]
    before = [parameter.clone() for parameter in model.parameters()]
    modes, state = [module.training for module in model.modules()], torch.get_rng_state()
    first = compute(make, model, squared_error, points(5))
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
        assert parameter.grad is None
    assert torch.equal(compute(make, model, squared_error, points(5)), first)
    hooks = [module._forward_pre_hooks for module in model.modules()]
    assert not any(hooks)


@pytest.mark.parametrize("make", [fisher, grams])
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e6])
def test_a_statistic_of_any_size_fits_a_sum(make: MakeStatistic, scale: float) -> None:
    examples = [
        Batch({name: scale * each for name, each in one.tensors.items()}, one.indices)
        for one in points(3)
    ]
    model = nn.Linear(4, 2, bias=False)
    found = compute(make, model, squared_error, examples)
    assert found[1:].abs().max() <= 1
    assert bool(found[1:].any()) == bool(scale)


@pytest.mark.parametrize("kind", ["lora", "dora", "none"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_padding_changes_no_statistic(family: str, kind: str, folders: dict[str, Path]) -> None:
    model: Any = make_classification(str(folders[family]), seed=5).load_model()
    if kind != "none":
        model = adapt(model, make_adapter(kind=kind), heads=beside_the_encoder(model), seed=1)
    ids = torch.tensor([[3, 4, 5, 6, 7]])
    mask, label = torch.ones_like(ids), torch.tensor([2])
    pad = torch.zeros(1, 3, dtype=torch.int64)
    filler = pad + (model.config.pad_token_id or 0)
    bare = make_batch(ids, mask, label)
    padded = make_batch(torch.cat([ids, filler], 1), torch.cat([mask, pad], 1), label)
    for make in (fisher, grams):
        one, other = (compute(make, model, classify, [batch]) for batch in (bare, padded))
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-5)
        assert one.any()


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "xlnet"])
def test_gram_matrices_of_batches_are_the_means_of_those_of_examples(
    family: str, kind: str, tmp_path: Path
) -> None:
    """Whichever dimension of the inputs is that of the examples, and with padding among them."""
    model: Any = make_classification(str(save_model(family, tmp_path)), seed=5).load_model()
    model = adapt(model, make_adapter(kind=kind), heads=beside_the_encoder(model), seed=1)
    ids = torch.randint(3, 8, (8, 5), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(5) < torch.arange(8)[:, None] % 3 + 3
    labels = torch.arange(8) % 3
    ids = ids.masked_fill(~mask, model.config.pad_token_id or 0)
    whole = make_batch(ids, mask.long(), labels)
    single = [make_batch(*(t[i : i + 1] for t in (ids, mask.long(), labels))) for i in range(8)]
    assert grams(model).most_at_once == len(whole)
    one, other = (compute(grams, model, classify, batches) for batches in (single, [whole]))
    at = 0
    for linear in linears_of(model):
        mine, others = (each[at + 1 : (end := at + 1 + linear.num_pairs)] for each in (one, other))
        assert one[at] == other[at]
        assert torch.allclose(mine, others, rtol=1e-3, atol=1e-5)
        at = end
    assert one.any()


def test_a_batch_has_fewer_examples_than_a_frozen_layer_has_inputs() -> None:
    """DoRA passes as many rows of the identity, which are no examples."""
    model = nn.Sequential(nn.Linear(8, 9), nn.Linear(9, 9))
    assert grams(model).most_at_once == 8
    model[0].requires_grad_(False)
    assert grams(model).most_at_once == 1


def test_dora_adds_no_inputs_of_its_own(folders: dict[str, Path]) -> None:
    """It passes the identity through A to know B A: B = 0 at first, so both kinds compute alike."""
    found = []
    for kind in ("lora", "dora"):
        model = make_classification(str(folders["bert"]), seed=5).load_model()
        model = adapt(model, make_adapter(kind=kind), heads=beside_the_encoder(model), seed=1)
        ids = torch.tensor([[3, 4, 5, 6, 7]])
        batch = make_batch(ids, torch.ones_like(ids), torch.tensor([2]))
        found.append(compute(grams, model, classify, [batch]))
    assert torch.allclose(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_layers_are_found_whichever_way_their_weights_are_stored(folders: dict[str, Path]) -> None:
    model = make_classification(str(folders["gpt2"]), seed=5).load_model()
    layout, found = Layout.of(model.named_parameters()), linears_of(model)
    vector = torch.arange(float(layout.size))
    views = layout.views(vector)
    by_name = {linear.layer: linear for linear in found}
    assert len(found) == 2 * 4 + 1
    wide = by_name["transformer.h.0.mlp.c_fc"]
    assert (wide.num_in, wide.num_out, wide.in_first) == (16, 64, True)
    assert torch.equal(wide.of(vector), views["transformer.h.0.mlp.c_fc.weight"])
    head = by_name["score"]
    assert torch.equal(head.of(vector), views["score.weight"].T)


def test_a_weight_that_two_layers_share_has_no_inputs_of_its_own() -> None:
    one, other, third = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 5)
    other.weight = one.weight
    model = nn.ModuleDict({"one": one, "other": other, "third": third})
    assert [linear.layer for linear in linears_of(model)] == ["third"]


def test_a_model_without_linear_layers_is_refused() -> None:
    with pytest.raises(UserError, match="regmean needs a linear layer"):
        grams(nn.Embedding(3, 4))
