"""The ring of neighbours is regular and hangs together, and the rule for their number is safe."""

import pytest
from scipy.stats import hypergeom

from scaling_fl.federation.neighbours import (
    bytes_beside,
    fewest_left,
    num_neighbours,
    ring,
    threshold,
)

NUMBERS = [*range(2, 64), 99, 100, 257, 1000]


@pytest.mark.parametrize("num_clients", NUMBERS)
def test_all_have_as_many_neighbours_and_are_theirs(num_clients: int) -> None:
    clients = [3 * n + 1 for n in range(num_clients)]
    near = ring(clients, "job 3")
    wanted = num_neighbours(num_clients)
    assert {len(set(others) - {client}) for client, others in near.items()} == {wanted}
    assert all(client in near[other] for client, others in near.items() for other in others)
    assert reached(near, clients[0]) == set(clients)


def reached(near: dict[int, list[int]], start: int) -> set[int]:
    found, new = {start}, {start}
    while new:
        new = {other for client in new for other in near[client]} - found
        found |= new
    return found


@pytest.mark.parametrize("num_clients", [22, 40, 63, 100, 1000, 10_000])
def test_the_number_of_neighbours_is_the_lowest_safe_one(num_clients: int) -> None:
    def is_safe(number: int) -> bool:
        part, needed = num_clients // 5, (number + 1) // 2 + 1
        exposed = hypergeom.sf(needed - 1, num_clients - 1, part, number)
        lost = hypergeom.sf(number - needed, num_clients - 1, part, number)
        cut = hypergeom.sf(number - 1, num_clients, 2 * part, number)  # all drawn are bad
        pairs = num_clients * (num_clients - 1) / 2
        return bool(num_clients * exposed + pairs * cut <= 2**-40 and num_clients * lost <= 2**-20)

    number = num_neighbours(num_clients)
    assert is_safe(number)
    assert number == 20 or not is_safe(number - 2)


def test_neighbours_are_few_and_bytes_grow_with_them() -> None:
    assert [num_neighbours(n) for n in (2, 5, 21, 22, 40, 100, 1000, 10_000, 100_000)] == [
        *(1, 4, 20, 20, 20, 40, 118, 146, 160)
    ]
    assert bytes_beside(22) == bytes_beside(40) == (20 * (128 + 79), 128 + 20 * 79 + 21 * 17)


def test_half_of_the_holders_reveal_nothing() -> None:
    assert all(2 * threshold(n) > n + 1 for n in range(1, 200))
    assert [fewest_left(n) for n in (2, 4, 21, 22, 40)] == [2, 3, 11, 18, 32]


def test_a_ring_is_of_its_round() -> None:
    clients = range(40)
    assert ring(clients, "job 3") == ring(reversed(clients), "job 3") != ring(clients, "job 4")
