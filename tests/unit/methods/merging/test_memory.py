"""What the table says that a merge keeps in memory is what the merge asks its round for."""

from typing import Any

import pytest
from torch import Tensor

from scaling_fl.config.merges import MERGES
from scaling_fl.conformance.cases import statistics_of, tenths
from scaling_fl.conformance.rounds import Sent, merge_on
from scaling_fl.conformance.tried_merge import tried_merge
from scaling_fl.core.exchange import SingleExchange
from scaling_fl.methods.merging.merge import Round, Updates


class Watched:
    """Notes the names of all that is asked of an object."""

    def __init__(self, thing: object, asked: set[str]) -> None:
        self._thing, self._asked = thing, asked

    def __getattr__(self, name: str) -> Any:
        self._asked.add(name)
        return getattr(self._thing, name)


@pytest.mark.parametrize("name", MERGES)
def test_the_table_says_what_a_merge_keeps(name: str) -> None:
    tried, row, asked = tried_merge(name), MERGES[name], set[str]()
    merge = tried.make()

    def watched(updates: Updates, round: Round) -> Tensor:
        everything: Any = (Watched(thing, asked) for thing in (updates, round))
        return merge(*everything)

    clients = [
        Sent(
            client,
            tenths(client, tried.places),
            share=0.25,
            extras=statistics_of(tried.payloads, client),
        )
        for client in range(4)
    ]
    merge_on(SingleExchange(1), watched, clients, clients, links=tried.links)
    assert ("columns" in asked) == (row.keeps == "columns")
    assert bool(asked & {"again", "together", "columns"}) == (row.keeps != "nothing")
    assert bool(asked & {"mean_over_senders", "mean_of_elected"}) == (row.num_sums == 2)
