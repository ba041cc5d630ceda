"""Who is of which tier: decided once, by the settings alone."""

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling_fl.methods.tiers import by_list, by_modulo, by_share


def test_modulo_deals_the_clients_in_turn() -> None:
    assert by_modulo(7, 3) == [0, 1, 2, 0, 1, 2, 0]
    assert by_modulo(3, 1) == [0, 0, 0]
    assert by_modulo(2, 3) == [0, 1]


@given(
    weights=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    num_clients=st.integers(1, 500),
    seed=st.integers(0, 99),
)
def test_every_tier_has_its_share_to_within_one_client(
    weights: list[int], num_clients: int, seed: int
) -> None:
    shares = [weight / sum(weights) for weight in weights]
    tiers = by_share(num_clients, shares, seed=seed)
    assert len(tiers) == num_clients
    counts = Counter(tiers)
    for tier, weight in enumerate(weights):
        exact = Fraction(weight * num_clients, sum(weights))
        assert abs(counts[tier] - exact) < 1
        if exact.denominator == 1:
            assert counts[tier] == exact


@pytest.mark.parametrize(
    ("num_clients", "shares", "counts"),
    [
        (10, [0.5, 0.5], [5, 5]),
        (3, [0.5, 0.5], [2, 1]),
        (10, [0.25, 0.75], [3, 7]),
        (100, [0.29, 0.71], [29, 71]),
        (30, [0.1, 0.2, 0.7], [3, 6, 21]),
        (1, [0.1, 0.6, 0.3], [0, 1, 0]),
    ],
)
def test_what_is_left_over_goes_to_the_largest_remainders(
    num_clients: int, shares: list[float], counts: list[int]
) -> None:
    found = Counter(by_share(num_clients, shares, seed=1))
    assert [found[tier] for tier in range(len(shares))] == counts


def test_shares_that_add_up_to_one_but_for_rounding_place_every_client() -> None:
    for error in (-9e-7, 9e-7):
        tiers = by_share(500, [0.5 + error, 0.25, 0.25], seed=0)
        assert [Counter(tiers)[tier] for tier in range(3)] == [250, 125, 125]


def test_the_draw_is_a_function_of_the_seed() -> None:
    drawn = [tuple(by_share(40, [0.5, 0.5], seed=seed)) for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3
    in_order = (0,) * 20 + (1,) * 20
    assert in_order not in drawn


def test_every_client_is_of_every_tier_about_as_often_as_the_shares_say() -> None:
    counts: Counter[int] = Counter()
    for seed in range(2000):
        counts.update(c for c, tier in enumerate(by_share(8, [0.25, 0.75], seed=seed)) if tier == 0)
    # 500 expected, standard deviation 19
    assert all(abs(counts[client] - 500) < 100 for client in range(8))


def test_lists_say_it_themselves() -> None:
    assert by_list([[3, 0], [1], [4, 2]]) == [0, 1, 2, 0, 2]
    assert by_list([(0, 1)]) == [0, 0]
