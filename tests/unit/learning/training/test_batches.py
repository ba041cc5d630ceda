"""Batches visit every example once, in an order that the generator alone decides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling_fl.learning.training.batches import epoch_batches, evaluation_batches

some_lengths = st.lists(st.integers(1, 70), min_size=1, max_size=200)


@pytest.mark.parametrize("length_grouped", [False, True])
@given(lengths=some_lengths, batch_size=st.integers(1, 40), seed=st.integers(0, 99))
def test_an_epoch_visits_every_example_once(length_grouped, lengths, batch_size, seed):
    indices = np.arange(0, len(lengths), 2)
    batches = epoch_batches(
        np.array(lengths),
        indices,
        batch_size=batch_size,
        rng=np.random.default_rng(seed),
        length_grouped=length_grouped,
    )
    assert np.array_equal(np.sort(np.concatenate(batches)), indices)
    sizes = sorted(len(batch) for batch in batches)
    assert sizes[1:] == [batch_size] * (len(sizes) - 1)
    assert len(batches) == -(-len(indices) // batch_size)


@pytest.mark.parametrize("length_grouped", [False, True])
def test_the_order_follows_the_generator_and_nothing_else(length_grouped):
    lengths, indices = np.arange(1, 101), np.arange(100)

    def order(seed):
        rng = np.random.default_rng(seed)
        options = {"batch_size": 8, "rng": rng, "length_grouped": length_grouped}
        return [batch.tolist() for batch in epoch_batches(lengths, indices, **options)]

    assert order(1) == order(1)
    assert order(1) != order(2)


def padded_tokens(lengths, batches):
    return sum(len(batch) * int(lengths[batch].max()) for batch in batches)


def test_grouping_by_length_pads_little_and_keeps_the_order_random():
    rng = np.random.default_rng(0)
    lengths, indices = rng.integers(5, 128, 4000), np.arange(4000)
    plain = epoch_batches(lengths, indices, batch_size=16, rng=rng)
    grouped = epoch_batches(lengths, indices, batch_size=16, rng=rng, length_grouped=True)
    assert padded_tokens(lengths, grouped) < 1.05 * lengths.sum()
    assert padded_tokens(lengths, plain) > 1.5 * lengths.sum()
    means = np.array([lengths[batch].mean() for batch in grouped])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.25


def test_evaluation_batches_are_fixed_and_start_with_the_longest():
    lengths = np.array([3, 9, 1, 9, 5])
    batches = [batch.tolist() for batch in evaluation_batches(lengths, 2)]
    assert batches == [[1, 3], [4, 0], [2]]
