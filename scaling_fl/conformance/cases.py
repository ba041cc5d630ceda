"""Cases that laws of merges are tried on: a few clients that move a few coordinates.

What ``hypothesis`` draws is small, so that its smallest counter-example can be read: how many
clients there are, in which share each counts, and which coordinates they move. Values are tenths.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from scaling_fl.conformance.rounds import LAYOUT, LINEARS, MODEL, SIZE, Sent
from scaling_fl.learning.task import Batch, BatchLoss, Statistic

Draw = Callable[[st.SearchStrategy[Any]], Any]
_SEEDS = st.integers(0, 3) | st.integers(0, 999)  # equal updates are not rare
_HEAD_SIZE = LAYOUT.sizes[-1]
_MOST_NAMED = 3
EVERYWHERE = torch.arange(SIZE)


@dataclass(frozen=True)
class Case:
    """The clients of a round, the global vector before it, and what else a law chooses."""

    clients: list[Sent]
    start: Tensor
    choice: tuple[Any, ...]
    drawn: tuple[Any, ...]
    """All that was drawn; equal cases have drawn the same."""

    def __str__(self) -> str:
        lines = [f"{_plural(len(self.clients), 'client')}:", *map(_client, self.clients)]
        if self.start.any():
            lines.append(f"  the global vector before the round: {moved(self.start)}")
        return "\n".join(lines)


def tenths(seed: int, places: Tensor = EVERYWHERE) -> Tensor:
    """Return a vector with tenths from -2 to 2, but not 0, at some places, and zeros elsewhere."""
    values = _tenths(seed)
    return torch.zeros(SIZE).index_copy(0, places, values[places])


@cache
def _tenths(seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    values = torch.randint(1, 21, (SIZE,), generator=rng)
    return values * (2 * torch.randint(0, 2, (SIZE,), generator=rng) - 1) / 10


@st.composite
def cases(
    draw: Draw,
    payloads: Mapping[str, Statistic],
    places: Tensor,
    *,
    fewest: int = 1,
    most: int = 5,
    are_halved: bool = False,
    from_zero: bool = False,
    choose: Callable[[int], st.SearchStrategy[tuple[Any, ...]]] = lambda count: st.just(()),
) -> Case:
    """Draw a case of ``fewest`` to ``most`` clients, which move some of ``places``.

    They send ``payloads`` beside their updates.
    With ``are_halved``, every share is 1/2, 1/4, 1/8 and so on, so that other sums of the same
    shares have the same bits. ``from_zero``: the global vector is zero before the round.
    ``choose`` makes the law's own choice, given the number of clients.
    """
    # In every other case, clients move all coordinates.
    size = len(places)
    first, length = draw(st.integers(0, size - 1)), min(draw(st.integers(1, 2 * size)), size)
    begin = None if from_zero else draw(st.none() | _SEEDS)
    # A list of pairs: hypothesis leaves out clients one by one.
    pairs = draw(st.lists(st.tuples(st.integers(1, 9), _SEEDS), min_size=fewest, max_size=most))
    weights, seeds = zip(*pairs, strict=True)
    shares = _halved_shares(weights) if are_halved else [one / sum(weights) for one in weights]
    choice = draw(choose(len(pairs)))
    # The head is last, where a number is read more easily.
    chosen = places.roll(_HEAD_SIZE)[(torch.arange(length) + first) % size]
    clients = [
        Sent(client, tenths(seed, chosen), share, extras=statistics_of(payloads, seed))
        for client, (share, seed) in enumerate(zip(shares, seeds, strict=True))
    ]
    start = torch.zeros(SIZE) if begin is None else tenths(begin)
    drawn = (first, length, begin, tuple(pairs), choice)
    return Case(clients, start, choice, drawn)


def parts(case: Case) -> Case:
    """Return the case in which every client sends a part of its coordinates alone."""
    return replace(case, clients=[_part(one) for one in case.clients])


def moved(vector: Tensor) -> str:
    """Name the coordinates of a vector that are not 0."""
    named = [f"{place(i)} = {vector[i]:.3g}" for i in vector.nonzero().flatten().tolist()]
    if len(named) > _MOST_NAMED + 1:
        named = [*named[:_MOST_NAMED], f"and {len(named) - _MOST_NAMED} more"]
    return ", ".join(named) or "nothing"


def place(index: int) -> str:
    """Name a coordinate by its parameter, its row and its column."""
    if index >= SIZE:
        return "the move of the frozen weights"
    number = next(n for n, end in enumerate(LAYOUT.offsets[1:]) if index < end)
    row, column = divmod(index - LAYOUT.offsets[number], LAYOUT.shapes[number][1])
    name = LAYOUT.names[number].removesuffix(".weight").removesuffix(".default")
    return f"{name}[{row},{column}]"


def _client(one: Sent) -> str:
    share = Fraction(one.share).limit_denominator(1000)
    return f"  client {one.client}, share {share}: {moved(one.vector)}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _halved_shares(weights: Sequence[int]) -> list[float]:
    """Halve the share of one client for each further one; ``weights`` choose which."""
    shares = [1.0]
    for weight in weights[1:]:
        one = weight % len(shares)
        shares[one] /= 2
        shares.append(shares[one])
    return shares


def statistics_of(payloads: Mapping[str, Statistic], seed: int) -> dict[str, Tensor]:
    """Compute what a client sends beside its update, of three examples of two tokens each."""
    rng = torch.Generator().manual_seed(seed)
    examples = [
        Batch(
            {one.layer: torch.randn(1, 2, one.num_in, generator=rng) for one in LINEARS},
            np.array([index]),
        )
        for index in range(3)
    ]
    return {name: one.compute(MODEL, _loss, examples) for name, one in payloads.items()}


def _loss(model: nn.Module, batch: Batch) -> BatchLoss:
    outputs = (model.get_submodule(name)(inputs) for name, inputs in batch.tensors.items())
    squares = torch.stack([output.square().mean() for output in outputs])
    return BatchLoss(squares.sum(), len(batch), {})


def _part(one: Sent) -> Sent:
    kept = torch.rand(SIZE, generator=torch.Generator().manual_seed(one.client)) < 0.4
    kept[0] = True
    return replace(one, vector=one.vector * kept, sent=kept.nonzero().squeeze(1))
