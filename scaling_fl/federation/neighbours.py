"""Whom a client of a secure sum shares masks with, and what that adds to its bytes.

Clients stand in a ring, in an order of the round's own, and the neighbours of each are those next
to it on both sides. Each client and its neighbours hold shares of its secrets.

Source: Bell et al., CCS 2020 (Secure Single-Server Aggregation with (Poly)Logarithmic Overhead),
the protocol against a server that keeps to it.
"""

from collections.abc import Collection
from fractions import Fraction
from functools import cache
from hashlib import sha256
from math import comb

FEWEST = 20
"""Neighbours that a client has at least, where there are as many other clients."""
_PART = 5
"""One client in so many may work with the server, and another one in so many may drop out."""
_UNSAFE, _UNSOUND = Fraction(1, 2**40), Fraction(1, 2**20)

SIGNATURE = 64
KEYS_BYTES = 2 * 32 + SIGNATURE
"""Of a client's two public keys, and of its node's signature."""
SEED_SHARE, KEY_SHARE = 17, 34
"""Bytes of a share of a seed and of a key: an index and a value, for each half of a key."""
SEALED_SHARES = 12 + SEED_SHARE + KEY_SHARE + 16
"""Bytes of both shares as they travel: a nonce, the shares, a tag."""


class Refused(Exception):
    """A request that would let the server see a single client's vector, or a damaged share."""


def threshold(num_neighbours: int) -> int:
    """Return how many of a client and its neighbours must reveal shares: more than half of them.

    So no two disjoint groups of them could reveal one thing each.
    """
    return (num_neighbours + 1) // 2 + 1


def fewest_left(num_clients: int) -> int:
    """Return how many clients must go on, for a sum to be safe and to be found."""
    if num_neighbours(num_clients) == num_clients - 1:
        return threshold(num_clients - 1)
    return num_clients - num_clients // _PART


@cache
def num_neighbours(num_clients: int) -> int:
    """Return how many neighbours each client has: all others, up to 21 clients.

    Of more clients, a fifth may work with the server, and another fifth drop out. The number is
    then the lowest even one, from 20 on, with which (1) a client's secrets are safe from those that
    work with the server, and no part of the others is cut off from the rest, so that its sum were
    to be seen alone, but for a chance of 2**-40; and (2) each client keeps enough neighbours to
    find its secrets by, but for a chance of 2**-20. The number grows as log(num_clients).
    """
    for number in range(FEWEST, num_clients - 1, 2):
        unsafe = _exposed(num_clients, number) + _cut(num_clients, number)
        if unsafe <= _UNSAFE and _lost(num_clients, number) <= _UNSOUND:
            return number
    return num_clients - 1


def _exposed(num_clients: int, number: int) -> Fraction:
    """Bound the chance that a client has as many bad neighbours as reveal its secrets."""
    bad = num_clients // _PART
    return num_clients * _at_least(threshold(number), number, bad, num_clients - 1)


def _lost(num_clients: int, number: int) -> Fraction:
    """Bound the chance that so many of a client's neighbours are gone that too few are left."""
    gone = num_clients // _PART
    too_many = number - threshold(number) + 1
    return num_clients * _at_least(too_many, number, gone, num_clients - 1)


def _cut(num_clients: int, number: int) -> Fraction:
    """Bound the chance that two gaps part the ring: in each, half a neighbourhood is bad or gone.

    For each two places, those ``number`` clients are a random choice.
    """
    missing = 2 * (num_clients // _PART)
    return comb(num_clients, 2) * Fraction(comb(missing, number), comb(num_clients, number))


def _at_least(least: int, drawn: int, marked: int, of: int) -> Fraction:
    """Return the chance that of ``drawn`` clients out of ``of`` at least so many are marked."""
    ways = sum(comb(marked, n) * comb(of - marked, drawn - n) for n in range(least, drawn + 1))
    return Fraction(ways, comb(of, drawn))


def ring(clients: Collection[int], context: str) -> dict[int, list[int]]:
    """Return the neighbours of each client, in ascending order, in the round that is ``context``.

    A round that is repeated has the same ring.
    """
    order = sorted(clients, key=lambda client: sha256(f"{context} {client}".encode()).digest())
    reach = (num_neighbours(len(order)) + 1) // 2
    found = {}
    for place, client in enumerate(order):
        near = {order[(place + step) % len(order)] for step in range(-reach, reach + 1)}
        found[client] = sorted(near - {client})
    return found


def bytes_beside(num_clients: int) -> tuple[int, int]:
    """Return the bytes (down, up) of a client's keys and shares, in a sum that nobody drops out of.

    Its masked update and what it trains from are not among them.
    """
    number = num_neighbours(num_clients)
    down = number * (KEYS_BYTES + SEALED_SHARES)
    return down, KEYS_BYTES + number * SEALED_SHARES + (number + 1) * SEED_SHARE
