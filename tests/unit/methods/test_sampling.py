from collections import Counter

from scaling_fl.methods.sampling import sample_cohort


def draw(round_number: int, seed: int = 0) -> list[int]:
    return sample_cohort(seed=seed, round_number=round_number, num_clients=20, size=5)


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
    assert sample_cohort(seed=3, round_number=1, num_clients=4, size=4) == [0, 1, 2, 3]
