"""The means against dense computations in fp64."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from scaling_fl.conformance.rounds import SIZE, Sent, merged, some_updates
from scaling_fl.methods.merging.means import mean, mean_of_senders


def dense(updates: list[Sent]) -> Tensor:
    """Average over the senders, coordinate by coordinate, in fp64."""
    found = torch.zeros(SIZE, dtype=torch.float64)
    for place in range(SIZE):
        weight, value = 0.0, 0.0
        for one in updates:
            if one.sent is None or place in one.sent.tolist():
                weight += one.share
                value += one.share * float(one.vector[place])
        found[place] = value / weight if weight else 0.0
    return found


@given(num_clients=st.integers(1, 8), seed=st.integers(0, 999), lost=st.integers(0, 2))
def test_the_mean_of_senders_is_that_of_a_dense_computation(
    num_clients: int, seed: int, lost: int
) -> None:
    """Clients that are left out are as if they had not been there."""
    updates = some_updates(num_clients + lost, seed, density=0.4)
    given_ = [replace(one, loss=float("nan")) if i < lost else one for i, one in enumerate(updates)]
    found = merged(mean_of_senders, given_).double()
    assert torch.allclose(found, dense(updates[lost:]), rtol=1e-6, atol=1e-9)


@given(num_clients=st.integers(1, 8), seed=st.integers(0, 999))
def test_the_mean_is_that_of_a_dense_computation(num_clients: int, seed: int) -> None:
    updates = some_updates(num_clients, seed)
    expected = torch.stack([one.vector.double() * one.share for one in updates]).sum(0)
    assert torch.allclose(merged(mean, updates).double(), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("num_clients", [1, 2, 4, 8])
def test_where_all_send_all_the_mean_of_senders_is_the_mean_to_the_bit(num_clients: int) -> None:
    updates = [replace(one, share=1 / num_clients) for one in some_updates(num_clients, 5)]
    assert torch.equal(merged(mean_of_senders, updates), merged(mean, updates))
    everything = torch.arange(SIZE)
    named = [replace(one, sent=everything) for one in updates]
    assert torch.equal(merged(mean_of_senders, named), merged(mean, updates))


@given(num_clients=st.integers(1, 9), seed=st.integers(0, 999))
def test_with_any_shares_they_differ_by_no_more_than_the_shares_rounding(
    num_clients: int, seed: int
) -> None:
    """Shares of thirds do not add up to 1 in fixed point, which may move a tie of fp32."""
    updates = some_updates(num_clients, seed)
    one, other = merged(mean_of_senders, updates), merged(mean, updates)
    assert torch.allclose(one, other, rtol=2.0**-23, atol=0)


def test_what_nobody_sent_is_zero_and_neither_infinite_nor_nan() -> None:
    sent, vector = torch.tensor([1, 5]), torch.zeros(SIZE)
    vector[sent] = 0.5
    updates = [Sent(0, vector, 0.25, sent), Sent(1, vector, 0.75, sent)]
    assert torch.equal(merged(mean_of_senders, updates), vector)


@given(num_clients=st.integers(1, 9), seed=st.integers(0, 999))
def test_equal_coordinates_are_a_fixed_point_whoever_sends_them(
    num_clients: int, seed: int
) -> None:
    """A client that sends nothing of a coordinate does not water it down, as the mean has it."""
    vector = torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))
    vector[vector.abs() < 2.0**-12] = 0.0  # below, a share of it falls between two units
    updates, sent_by_any = [], torch.zeros(SIZE, dtype=torch.bool)
    for one in some_updates(num_clients, seed, density=0.4):
        assert one.sent is not None
        marks = torch.zeros(SIZE, dtype=torch.bool).index_fill(0, one.sent, True)
        sent_by_any |= marks
        updates.append(replace(one, vector=vector * marks))
    assert torch.equal(merged(mean_of_senders, updates), vector * sent_by_any)
    some_send_less = any(one.sent.numel() < sent_by_any.sum() for one in updates)  # type: ignore[union-attr]
    if some_send_less:
        assert not torch.equal(merged(mean, updates), vector * sent_by_any)
