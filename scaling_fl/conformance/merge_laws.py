"""The laws of merges. Each is tried on rounds with real payloads, sums and workers.

A merge keeps a law or breaks it by its nature. What the built-in ones break, and why, stands in
their rows (``config.merges``).
"""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from scaling_fl.conformance import merge_checks
from scaling_fl.conformance.cases import Case, cases
from scaling_fl.conformance.rounds import SIZE
from scaling_fl.conformance.trial import Law, always
from scaling_fl.conformance.tried_merge import TriedMerge


def _permutations(count: int) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.permutations(range(count)).map(tuple)


def _of_each(count_of: int) -> Callable[[int], st.SearchStrategy[tuple[Any, ...]]]:
    """Choose one of ``count_of`` numbers for each client: the digits of one number, lowest first.

    So a smaller case is one of fewer clients.
    """

    def choose(count: int) -> st.SearchStrategy[tuple[Any, ...]]:
        code = st.integers(0, count_of**count - 1)
        return code.map(
            lambda n: tuple(n // count_of**client % count_of for client in range(count))
        )

    return choose


def _law(
    name: str,
    promise: str,
    check: Callable[[TriedMerge, Case], None],
    choice: str = "",
    most_cases: int = 1000,
    applies: Callable[[TriedMerge], bool] = always,
    **drawn: Any,
) -> Law[TriedMerge]:
    """Make a law; ``choice`` says what the choice of a case is, ``drawn`` is for ``cases``."""

    def describe(case: Case) -> str:
        chosen = choice.format(", ".join(map(str, case.choice)))
        return f"{case}\n{chosen}" if choice else str(case)

    return Law(
        name,
        promise,
        check,
        lambda tried: cases(tried.payloads, tried.places, **drawn),
        describe,
        most_cases,
        applies,
    )


MERGE_LAWS = [
    _law(
        "order",
        "the order of arrival changes no bit",
        merge_checks.order,
        "they arrive in the order {}",
        fewest=2,
        choose=_permutations,
    ),
    _law(
        "placement",
        "on one worker or on several: the same bits",
        merge_checks.placement,
        "on one worker, and on workers {} beside one without clients",
        fewest=2,
        choose=_of_each(3),
    ),
    _law(
        "numbers",
        "the numbers of clients change nothing",
        merge_checks.numbers,
        "they get the numbers {}",
        fewest=2,
        are_halved=True,
        choose=_permutations,
    ),
    _law(
        "one client",
        "one client alone is merged to its update",
        merge_checks.one_client,
        most=1,
    ),
    _law(
        "equal clients",
        "equal clients are as one of them alone",
        merge_checks.equal_clients,
        "the others send what client 0 sends",
        fewest=2,
    ),
    _law(
        "weights",
        "a client is as two of half of its share",
        merge_checks.weights,
        "client {} is halved",
        are_halved=True,
        choose=lambda count: st.tuples(st.integers(0, count - 1)),
    ),
    _law(
        "scale",
        "twice the updates are twice the merged update",
        merge_checks.scale,
        "they send twice that",
        from_zero=True,
    ),
    _law(
        "still clients",
        "clients that did not move move nothing",
        merge_checks.still_clients,
        "but none of them moves",
    ),
    _law(
        "zero client",
        "one that did not move counts with its share",
        merge_checks.zero_client,
        "and one of share 1/2 that did not move, beside half of each of these shares",
        are_halved=True,
        from_zero=True,
    ),
    _law(
        "lost client",
        "a client with NaN is left out and named",
        merge_checks.lost_client,
        "and one of share 3/4 with NaN, beside a quarter of each of these shares",
        are_halved=True,
        choose=lambda count: st.tuples(st.integers(0, SIZE - 1), st.integers(0, 5)),
    ),
    _law("layers", "nothing moves but what some client moved", merge_checks.layers, from_zero=True),
    _law(
        "tiers",
        "a smaller rank is as sending a part alone",
        merge_checks.tiers,
        "they are in the tiers {}, and tier 1 holds rank 1 of 2",
        fewest=2,
        choose=_of_each(2),
    ),
    _law(
        "gauge",
        "B G and inv(G) A are merged as B and A are",
        merge_checks.gauge,
        "with one of the matrices G for each client: {}",
        # In a turn, A or B is that of all clients, and so is its basis.
        applies=lambda tried: tried.turn is None,
        from_zero=True,
        choose=_of_each(4),
    ),
    _law(
        "resume",
        "nothing is kept from round to round",
        merge_checks.resume,
        "after a round of -1 times it",
    ),
    _law(
        "memory",
        "clients of other workers take no memory",
        merge_checks.memory,
        "and {} clients on another worker",
        most_cases=3,
        most=1,
        choose=lambda count: st.tuples(st.integers(2, 12)),
    ),
]
