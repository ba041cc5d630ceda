import logging
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from scaling_fl.methods.privacy.losses import ORDERS, renyi_divergences
from scaling_fl.methods.privacy.neighbours import Everyone, FixedSize, Nested, Poisson


def at(order: float, divergences: NDArray[np.float64]) -> float:
    return float(divergences[int(np.abs(ORDERS - order).argmin())])


def divergence(order: float, p: list[tuple[float, float]], q: list[tuple[float, float]]) -> float:
    """The Renyi divergence of two mixtures of unit-variance normals, by numerical integration.

    A mixture is a list of (weight, mean).
    """
    x = np.linspace(-30.0, 40.0, 14_001)

    def log_density(mixture: list[tuple[float, float]]) -> NDArray[np.float64]:
        terms = [math.log(w) - (x - m) ** 2 / 2 for w, m in mixture if w > 0]
        return np.asarray(np.logaddexp.reduce(terms)) - math.log(2 * math.pi) / 2

    exponent = order * log_density(p) + (1 - order) * log_density(q)
    top = exponent.max()
    integral = np.trapezoid(np.exp(exponent - top), x)
    return float(top + math.log(integral)) / (order - 1)


def test_everyone_has_the_closed_form() -> None:
    for noise in (0.5, 1.0, 7.0):
        expected = ORDERS / (2 * noise**2)
        assert renyi_divergences(Everyone(), noise) == pytest.approx(expected, rel=1e-12)
        assert renyi_divergences(Poisson(1.0), noise) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("order", [2.0, 3.0, 8.0])
@pytest.mark.parametrize("rate", [0.01, 0.3])
def test_poisson_matches_numerical_integration(rate: float, order: float) -> None:
    noise = 1.3
    with_client = [(1 - rate, 0.0), (rate, 1 / noise)]
    without = [(1.0, 0.0)]
    bound = at(order, renyi_divergences(Poisson(rate), noise))
    assert bound == pytest.approx(divergence(order, with_client, without), rel=1e-7)
    assert bound >= divergence(order, without, with_client)


@pytest.mark.parametrize("order", [1.5, 2.5, 4.5])
def test_fractional_orders_are_bounds(order: float) -> None:
    bound = at(order, renyi_divergences(Poisson(0.1), 1.0))
    assert bound >= divergence(order, [(0.9, 0.0), (0.1, 1.0)], [(1.0, 0.0)])


@pytest.mark.parametrize("order", [2.0, 2.5, 5.0, 16.0, 63.0])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_a_fixed_size_costs_at_least_what_known_neighbours_show(rate: float, order: float) -> None:
    """Against all others 0, a client of +clip for -clip; against all others +clip, also -clip."""
    noise = 2.5
    clip = 1 / noise
    bound = at(order, renyi_divergences(FixedSize(int(10 * rate), 10), noise))
    plus = [(1 - rate, 0.0), (rate, clip)]
    minus = [(1 - rate, 0.0), (rate, -clip)]
    far, none = [(1 - rate, 0.0), (rate, 2 * clip)], [(1.0, 0.0)]
    for p, q in ((plus, minus), (far, none), (none, far)):
        assert bound >= divergence(order, p, q)


@pytest.mark.parametrize("order", [2.0, 4.0])
def test_nested_draws_cost_more_than_the_product_of_their_rates(order: float) -> None:
    """The other groups of a client, 12 away, show whether the client takes part."""
    noise, client_rate, group_rate = 1.145, 0.2, 0.125
    inside, both = client_rate * (1 - group_rate), client_rate * group_rate
    with_group = [(1 - client_rate, 0.0), (inside, 12.0), (both, 12.0 + 1 / noise)]
    without = [(1 - client_rate, 0.0), (client_rate, 12.0)]
    shown = divergence(order, with_group, without)
    bound = at(order, renyi_divergences(Nested(client_rate, Poisson(group_rate)), noise))
    product = at(order, renyi_divergences(Poisson(client_rate * group_rate), noise))
    assert bound == pytest.approx(shown, rel=1e-6)
    assert product < 0.5 * shown


@pytest.mark.parametrize("groups", [Everyone(), Poisson(0.1), FixedSize(1, 4)])
def test_clients_that_always_take_part_leave_the_groups(
    groups: Everyone | Poisson | FixedSize,
) -> None:
    nested = Nested(1.0, groups)
    assert nested.neighbours == groups.neighbours
    expected = renyi_divergences(groups, 1.5)
    assert renyi_divergences(nested, 1.5) == pytest.approx(expected, rel=1e-9)


def test_almost_no_cost_is_not_taken_for_none() -> None:
    """The series come out below 0 here, which dp-accounting reads as an epsilon of 0."""
    assert (renyi_divergences(Poisson(0.01), 1e8) > 0).all()


def test_orders_that_do_not_converge_are_left_out_silently(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.WARNING):
        assert math.isinf(renyi_divergences(Poisson(0.1), 0.5)[0])
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("absl").filters == []
