"""The optimisers of 8 bits step nearly as those of 32, and forget all of a client."""

import pytest
import torch
from torch import nn

from scaling_fl.core.errors import UserError
from scaling_fl.learning.training.optimisers import OPTIMISERS, forget, make_optimiser

SIZE = 5000
"""Above 4,096 coordinates, below which bitsandbytes keeps 32 bits."""


def steps(optimiser: torch.optim.Optimizer, weight: nn.Parameter, *, seed: int) -> torch.Tensor:
    """Do some steps from the same weights, towards 0 with noise; returns the weights."""
    generator = torch.Generator().manual_seed(seed)
    weight.data = torch.linspace(-1, 1, SIZE)
    for group in optimiser.param_groups:
        group["lr"] = 0.01
    for _ in range(20):
        weight.grad = weight.detach() + 0.1 * torch.randn(SIZE, generator=generator)
        optimiser.step()
    return weight.detach().clone()


def make(name: str) -> tuple[torch.optim.Optimizer, nn.Parameter]:
    weight = nn.Parameter(torch.zeros(SIZE))
    return make_optimiser(name, [weight], weight_decay=0.1, momentum=0.0), weight


@pytest.mark.parametrize("name", sorted(OPTIMISERS.keys() - {"paged_adamw_8bit"}))
def test_an_optimiser_that_forgot_steps_as_a_new_one(name: str) -> None:
    optimiser, weight = make(name)
    steps(optimiser, weight, seed=1)
    forget(optimiser)
    assert steps(optimiser, weight, seed=2).equal(steps(*make(name), seed=2))


def test_an_optimiser_of_8_bits_steps_nearly_as_one_of_32() -> None:
    found, expected = (steps(*make(name), seed=1) for name in ("adamw_8bit", "adamw"))
    moved = expected - torch.linspace(-1, 1, SIZE)
    assert float((found - expected).norm() / moved.norm()) < 0.05
    optimiser, weight = make("adamw_8bit")
    steps(optimiser, weight, seed=1)
    moments = [optimiser.state[weight][name] for name in ("state1", "state2")]
    assert {moment.dtype for moment in moments} == {torch.uint8}


def test_what_pages_out_of_a_gpus_memory_needs_a_gpu() -> None:
    with pytest.raises(UserError, match="optimiser must be another one than paged_adamw_8bit"):
        make("paged_adamw_8bit")
