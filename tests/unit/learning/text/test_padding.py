"""Batches of texts pad no more than they must, and a model never looks at the padding."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from scaling_fl.learning.text.tokenised import TokenisedExamples

PAD = 99


def make_examples(lengths, *, max_seq_len=512, pad_token_id=PAD):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    token_ids = np.arange(offsets[-1], dtype=np.int32) % 90
    labels = np.arange(len(lengths), dtype=np.int64) % 3
    return TokenisedExamples(
        token_ids=token_ids,
        offsets=offsets,
        labels=labels,
        max_seq_len=max_seq_len,
        pad_token_id=pad_token_id,
    )


@given(lengths=st.lists(st.integers(1, 70), min_size=1, max_size=200), data=st.data())
def test_a_batch_holds_its_examples_and_padding(lengths, data):
    examples = make_examples(lengths)
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=20))
    indices = np.array(chosen, dtype=np.int64)
    batch = examples.batch(indices)
    tensors = batch.tensors
    assert batch.indices is indices
    assert len(batch) == len(indices)
    width = -(-int(examples.lengths[indices].max()) // 8) * 8
    assert tensors["input_ids"].shape == tensors["attention_mask"].shape == (len(indices), width)
    for row, index in enumerate(indices):
        own = examples.token_ids[examples.offsets[index] : examples.offsets[index + 1]].tolist()
        padding = width - len(own)
        assert tensors["input_ids"][row].tolist() == own + [PAD] * padding
        assert tensors["attention_mask"][row].tolist() == [1] * len(own) + [0] * padding
    assert tensors["labels"].tolist() == examples.labels[indices].tolist()
    assert {tensor.dtype for tensor in tensors.values()} == {torch.int64}


def test_the_width_stays_within_max_seq_len():
    batch = make_examples([9, 10], max_seq_len=10).batch(np.array([0, 1]))
    assert batch.tensors["input_ids"].shape == (2, 10)


def test_padding_does_not_change_what_a_model_answers():
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(vocab_size=100, intermediate_size=32, num_labels=3, **shape)
    model = BertForSequenceClassification(config).eval()
    examples = make_examples([3, 40], pad_token_id=0)

    def answer(indices):
        tensors = examples.batch(np.array(indices)).tensors
        inputs = {name: tensors[name] for name in ("input_ids", "attention_mask")}
        return model(**inputs).logits[0]

    with torch.inference_mode():
        torch.testing.assert_close(answer([0]), answer([0, 1]))
