import torch
from torch import nn

from scaling_fl.core.vector import Layout, flatten_parameters


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def test_the_parameters_become_views_of_the_vector() -> None:
    model = small_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    layout, flat = flatten_parameters(model)
    assert flat.numel() == layout.size == sum(p.numel() for p in model.parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
    flat.fill_(3.0)
    assert all(bool((p == 3.0).all()) for p in model.parameters())


def test_frozen_and_tied_parameters_are_not_counted_twice_or_at_all() -> None:
    model = nn.ModuleDict({"a": nn.Linear(5, 5, bias=False), "b": nn.Linear(5, 5, bias=False)})
    model["b"].weight = model["a"].weight
    model["c"] = nn.Linear(7, 7)
    for parameter in model["c"].parameters():
        parameter.requires_grad_(False)
    layout, flat = flatten_parameters(model)
    assert layout.names == ("a.weight",)
    assert flat.numel() == 25


def test_a_training_step_on_the_views_is_the_step_on_the_plain_model() -> None:
    plain, flat_model = small_model(), small_model()
    _, flat = flatten_parameters(flat_model)
    inputs, targets = torch.randn(8, 3), torch.randn(8, 2)
    for model in (plain, flat_model):
        optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
        for _ in range(3):
            optimiser.zero_grad()
            nn.functional.mse_loss(model(inputs), targets).backward()
            optimiser.step()
    assert torch.equal(flat, torch.cat([p.detach().flatten() for p in plain.parameters()]))


def test_a_layout_survives_json() -> None:
    layout, _ = flatten_parameters(small_model())
    assert Layout.from_json(layout.to_json()) == layout
