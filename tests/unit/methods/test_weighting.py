import pytest

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
