import pytest
import torch

from scaling_fl.methods.server_optimisers import SERVER_OPTIMISERS
from scaling_fl.methods.weighting import WEIGHTINGS


@pytest.mark.parametrize("name", sorted(WEIGHTINGS))
@pytest.mark.parametrize("counts", [[1], [5, 5, 5], [1, 10, 100, 1000]])
def test_shares_are_a_partition_of_one(name: str, counts: list[int]) -> None:
    shares = WEIGHTINGS[name](counts)
    assert sum(shares) == pytest.approx(1.0)
    assert all(share > 0 for share in shares)


def test_examples_weigh_by_size_and_uniform_does_not() -> None:
    assert WEIGHTINGS["examples"]([1, 3]) == [0.25, 0.75]
    assert WEIGHTINGS["uniform"]([1, 3]) == [0.5, 0.5]


def test_sgd_with_learning_rate_1_adds_the_update() -> None:
    optimiser = SERVER_OPTIMISERS["sgd"](1.0)
    vector, update = torch.randn(9), torch.randn(9)
    expected = vector + update
    optimiser.apply(vector, update, optimiser.init(vector))
    assert torch.equal(vector, expected)


def test_sgd_matches_torch_with_the_negative_update_as_gradient() -> None:
    vector, update = torch.randn(9), torch.randn(9)
    reference = torch.nn.Parameter(vector.clone())
    reference.grad = -update
    torch.optim.SGD([reference], lr=0.3).step()
    optimiser = SERVER_OPTIMISERS["sgd"](0.3)
    optimiser.apply(vector, update, optimiser.init(vector))
    assert torch.allclose(vector, reference.detach(), rtol=1e-6, atol=0)
