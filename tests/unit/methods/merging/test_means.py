"""The merges' laws: equal clients are a fixed point, and neither order nor place changes a bit."""

import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scaling_fl.core.exact_sum import ExactSum
from scaling_fl.methods.merging.means import mean, mean_of_senders

CPU = torch.device("cpu")
SIZE = 60

Term = tuple[Tensor, float, Tensor | None]
"""An update, its client's share, and which of its coordinates were sent (None: all)."""


def random_terms(num_clients: int, seed: int, *, density: float | None = 0.4) -> list[Term]:
    rng = torch.Generator().manual_seed(seed)
    weights = torch.randint(1, 50, (num_clients,), generator=rng).double()
    terms = []
    for share in (weights / weights.sum()).tolist():
        vector = torch.randn(SIZE, generator=rng) * 0.1
        sent = None
        if density is not None:
            kept = torch.rand(SIZE, generator=rng) < density
            vector, sent = vector * kept, kept.nonzero().squeeze(1)
        terms.append((vector, share, sent))
    return terms


def sums_of(terms: Sequence[Term]) -> tuple[ExactSum, ExactSum]:
    sums, senders = ExactSum(SIZE, CPU), ExactSum(SIZE, CPU)
    for vector, share, sent in terms:
        sums.add(vector, share)
        senders.add_share(share, sent)
    return sums, senders


def merged(terms: Sequence[Term], *others: Sequence[Term]) -> Tensor:
    """Average over those that sent each coordinate, on a worker for every list of terms."""
    sums, senders = sums_of(terms)
    of_others = [sums_of(other) for other in others]
    parts = {
        id(sums.units): [s.units for s, _ in of_others],
        id(senders.units): [s.units for _, s in of_others],
    }

    def total(units: Tensor) -> Tensor:
        for part in parts[id(units)]:
            units += part
        return units

    return mean_of_senders(sums, senders, total, out=torch.full((SIZE,), torch.nan))


def plain_mean(terms: Sequence[Term]) -> Tensor:
    sums, _ = sums_of(terms)
    return mean(sums, lambda units: units, included_share=1.0, out=torch.empty(SIZE))


def dense(terms: Sequence[Term]) -> Tensor:
    """Average over the senders, coordinate by coordinate, in fp64."""
    found = torch.zeros(SIZE, dtype=torch.float64)
    for place in range(SIZE):
        weight, value = 0.0, 0.0
        for vector, share, sent in terms:
            if sent is None or place in sent.tolist():
                weight += share
                value += share * float(vector[place])
        found[place] = value / weight if weight else 0.0
    return found


@settings(max_examples=20)
@given(num_clients=st.integers(1, 8), seed=st.integers(0, 999), lost=st.integers(0, 2))
def test_the_mean_of_senders_is_that_of_a_dense_computation(
    num_clients: int, seed: int, lost: int
) -> None:
    """Clients that were left out are simply not among the terms."""
    terms = random_terms(num_clients + lost, seed)[lost:]
    assert torch.allclose(merged(terms).double(), dense(terms), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("num_clients", [1, 2, 4, 8])
def test_where_all_send_all_the_mean_of_senders_is_the_mean_to_the_bit(num_clients: int) -> None:
    terms = [
        (vector, 1 / num_clients, sent)
        for vector, _, sent in random_terms(num_clients, 5, density=None)
    ]
    assert torch.equal(merged(terms), plain_mean(terms))
    everything = torch.arange(SIZE)
    assert torch.equal(
        merged([(vector, share, everything) for vector, share, _ in terms]), plain_mean(terms)
    )


@given(num_clients=st.integers(1, 9), seed=st.integers(0, 999))
def test_with_any_shares_they_differ_by_no_more_than_the_shares_rounding(
    num_clients: int, seed: int
) -> None:
    """Shares of thirds do not add up to 1 in fixed point, which may move a tie of fp32."""
    terms = random_terms(num_clients, seed, density=None)
    assert torch.allclose(merged(terms), plain_mean(terms), rtol=2.0**-23, atol=0)


def test_what_nobody_sent_is_zero_and_neither_infinite_nor_nan() -> None:
    sent = torch.tensor([1, 5])
    vector = torch.zeros(SIZE)
    vector[sent] = 0.5
    update = merged([(vector, 0.25, sent), (vector, 0.75, sent)])
    assert torch.equal(update, vector)
    assert not merged([]).any()


@given(
    placement=st.lists(st.integers(0, 2), min_size=1, max_size=9),
    seed=st.integers(0, 999),
)
def test_neither_order_nor_place_changes_a_bit(placement: list[int], seed: int) -> None:
    terms = random_terms(len(placement), seed)
    alone = merged(terms)
    shuffled = random.Random(seed).sample(terms, len(terms))
    assert torch.equal(merged(shuffled), alone)
    split: list[list[Term]] = [[], [], []]
    for term, worker in zip(terms, placement, strict=True):
        split[worker].append(term)
    assert torch.equal(merged(*split), alone)


@given(num_clients=st.integers(1, 9), seed=st.integers(0, 999))
def test_equal_coordinates_are_a_fixed_point_whoever_sends_them(
    num_clients: int, seed: int
) -> None:
    """A client that sends nothing of a coordinate does not water it down, as the mean has it."""
    vector = torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))
    vector[vector.abs() < 2.0**-12] = 0.0  # below, a share of it falls between two units
    terms: list[Term] = []
    sent_by_any = torch.zeros(SIZE, dtype=torch.bool)
    for _, share, sent in random_terms(num_clients, seed):
        assert sent is not None
        kept = torch.zeros(SIZE, dtype=torch.bool)
        kept[sent] = True
        sent_by_any |= kept
        terms.append((vector * kept, share, sent))
    assert torch.equal(merged(terms), vector * sent_by_any)
    if num_clients > 1 and not all(t[2].numel() == sent_by_any.sum() for t in terms):  # type: ignore[union-attr]
        assert not torch.equal(plain_mean(terms), vector * sent_by_any)
