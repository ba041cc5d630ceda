from collections import Counter

import numpy as np
import pytest

from scaling_fl.core.seeding import from_seed
from scaling_fl.methods.sampling import fixed_cohorts, listed_cohorts, poisson_cohorts


def draw(round_number: int, seed: int = 0) -> list[int]:
    return fixed_cohorts(20, 5, from_seed(seed))(round_number)


def test_a_cohort_has_different_clients_in_order() -> None:
    for round_number in range(50):
        cohort = draw(round_number)
        assert cohort == sorted(set(cohort))
        assert len(cohort) == 5
        assert all(0 <= client < 20 for client in cohort)


def test_cohorts_differ_by_round_and_seed_and_repeat_for_both() -> None:
    assert draw(1) == draw(1)
    assert len({tuple(draw(r)) for r in range(10)}) > 5
    assert [draw(r) for r in range(5)] != [draw(r, seed=1) for r in range(5)]


def test_every_client_is_drawn_about_equally_often() -> None:
    counts = Counter(client for r in range(4000) for client in draw(r))
    assert set(counts) == set(range(20))
    # 1000 expected, standard deviation 27: five of them is a chance of one in a million.
    assert all(abs(count - 1000) < 140 for count in counts.values())


def test_everyone_takes_part_when_the_cohort_is_everyone() -> None:
    assert fixed_cohorts(4, 4, from_seed(3))(1) == [0, 1, 2, 3]


def flip(round_number: int, size: int = 5, num_clients: int = 20) -> list[int]:
    return poisson_cohorts(num_clients, size, from_seed(0))(round_number)


@pytest.mark.parametrize("size", [1, 5, 18])
def test_poisson_draws_every_client_by_itself_at_the_rate(size: int) -> None:
    rounds, rate = 4000, size / 20
    drawn = np.zeros((rounds, 20))
    for round_number in range(rounds):
        cohort = flip(round_number, size)
        assert cohort == sorted(set(cohort))
        drawn[round_number, cohort] = 1.0
    spread = (rate * (1 - rate) / rounds) ** 0.5
    assert np.abs(drawn.mean(0) - rate).max() < 5 * spread
    # That of a binomial number; with cohorts of a fixed size it would be 0.
    assert drawn.sum(1).var() == pytest.approx(20 * rate * (1 - rate), rel=0.12)
    correlations = np.corrcoef(drawn.T) - np.eye(20)
    assert np.abs(correlations).max() < 5 / rounds**0.5


def test_a_poisson_draw_of_a_client_does_not_depend_on_how_many_come_after_it() -> None:
    for round_number in range(20):
        few, many = flip(round_number, 2, num_clients=5), flip(round_number, 8, num_clients=20)
        assert few == [client for client in many if client < 5]


def test_a_poisson_cohort_may_be_empty_and_is_everyone_at_rate_one() -> None:
    sizes = {len(flip(r, 1, num_clients=3)) for r in range(50)}
    assert sizes == {0, 1, 2, 3}
    assert all(flip(r, 20) == list(range(20)) for r in range(50))


def test_poisson_cohorts_differ_by_round_and_repeat() -> None:
    assert flip(1) == flip(1)
    assert len({tuple(flip(r)) for r in range(10)}) > 5


def test_listed_cohorts_come_in_turn_and_again() -> None:
    cohort = listed_cohorts([[3, 1], [0], [2, 4, 1]])
    assert [cohort(r) for r in range(1, 8)] == [
        [1, 3],
        [0],
        [1, 2, 4],
        [1, 3],
        [0],
        [1, 2, 4],
        [1, 3],
    ]
