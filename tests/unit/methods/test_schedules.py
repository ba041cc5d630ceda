import pytest

from scaling_fl.methods.schedules import SCHEDULES


@pytest.mark.parametrize(
    ("round_number", "expected"), [(1, 4.880e-5), (5, 2.550e-5), (9, 2.199e-6), (10, 1.000e-6)]
)
def test_cosine_over_ten_rounds_has_the_published_values(
    round_number: int, expected: float
) -> None:
    got = SCHEDULES["cosine"](5e-5, 1e-6, 10)(round_number)
    assert got == pytest.approx(expected, rel=5e-4)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_the_last_round_trains_with_the_final_rate(kind: str) -> None:
    rates = list(map(SCHEDULES[kind](1e-3, 1e-5, 20), range(1, 21)))
    assert rates[-1] == pytest.approx(1e-5)
    assert rates == sorted(rates, reverse=True)


def test_linear_goes_down_in_equal_steps() -> None:
    rates = list(map(SCHEDULES["linear"](1.0, 0.0, 4), range(1, 5)))
    assert rates == pytest.approx([0.75, 0.5, 0.25, 0.0])


def test_constant_ignores_the_round() -> None:
    assert set(map(SCHEDULES["constant"](0.1, 0.0, 9), range(1, 10))) == {0.1}
