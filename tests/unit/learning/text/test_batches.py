"""Batches visit every example once, pad no more than they must, and never look at padding."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scaling_fl.learning.text.batches import collate, epoch_batches, evaluation_batches
from scaling_fl.learning.text.tokenised import TokenisedExamples

PAD = 99


def make_examples(lengths, max_seq_len=None):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    token_ids = np.arange(offsets[-1], dtype=np.int32) % 90
    labels = np.arange(len(lengths), dtype=np.int64) % 3
    return TokenisedExamples(token_ids, offsets, labels, max_seq_len)


some_lengths = st.lists(st.integers(1, 70), min_size=1, max_size=200)


@given(lengths=some_lengths, data=st.data())
def test_a_batch_holds_its_examples_and_padding(lengths, data):
    examples = make_examples(lengths)
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=20))
    indices = np.array(chosen, dtype=np.int64)
    batch = collate(examples, indices, pad_token_id=PAD)
    width = -(-int(examples.lengths[indices].max()) // 8) * 8
    assert batch.input_ids.shape == batch.attention_mask.shape == (len(indices), width)
    for row, index in enumerate(indices):
        own = examples.token_ids[examples.offsets[index] : examples.offsets[index + 1]].tolist()
        padding = width - len(own)
        assert batch.input_ids[row].tolist() == own + [PAD] * padding
        assert batch.attention_mask[row].tolist() == [1] * len(own) + [0] * padding
    assert batch.labels.tolist() == examples.labels[indices].tolist()
    parts = (batch.input_ids, batch.attention_mask, batch.labels)
    assert {part.dtype for part in parts} == {torch.int64}


def test_the_width_stays_within_max_seq_len():
    batch = collate(make_examples([9, 10], max_seq_len=10), np.array([0, 1]), pad_token_id=PAD)
    assert batch.input_ids.shape == (2, 10)


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


def test_padding_does_not_change_what_a_model_answers():
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(vocab_size=100, intermediate_size=32, num_labels=3, **shape)
    model = BertForSequenceClassification(config).eval()
    examples = make_examples([3, 40])

    def answer(indices):
        batch = collate(examples, np.array(indices), pad_token_id=0)
        return model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[0]

    with torch.inference_mode():
        torch.testing.assert_close(answer([0]), answer([0, 1]))
