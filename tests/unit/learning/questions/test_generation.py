"""What a model writes is what transformers generates, alone or beside longer prompts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from scaling_fl.learning.questions.generation import (
    encode_prompts,
    stop_tokens,
    texts_of,
    write,
)
from tests.causal_models import bpe_tokenizer, tiny_gpt2, tiny_llama

TEXTS = ["Question: red?", "blue heart of which question?", "A", "right right right Answer:"]


@pytest.mark.parametrize("make_model", [tiny_llama, tiny_gpt2])
def test_a_batch_is_written_as_transformers_generates_each(make_model: Callable[[], Any]) -> None:
    model, tokenizer = make_model(seed=3), bpe_tokenizer()
    limits = [12, 1, 5, 9]
    ids = tokenizer(TEXTS)["input_ids"]
    prompts = encode_prompts(ids, limits, max_seq_len=100, tokenizer=tokenizer)
    with torch.inference_mode():
        found = write(model, prompts.batch(np.arange(4)), stop_tokens(model, tokenizer))
        for row, prompt, limit in zip(found, ids, limits, strict=True):
            asked = torch.tensor([prompt])
            expected = model.generate(
                asked,
                attention_mask=torch.ones_like(asked),
                do_sample=False,
                max_new_tokens=limit,
                pad_token_id=1,
            )[0, len(prompt) :].tolist()
            assert row == [token for token in expected if token != 1]


def test_a_stop_token_ends_one_answer_alone() -> None:
    model, tokenizer = tiny_llama(), bpe_tokenizer()
    prompts = encode_prompts(
        tokenizer(TEXTS)["input_ids"], [10] * 4, max_seq_len=100, tokenizer=tokenizer
    )
    batch = prompts.batch(np.arange(4))
    with torch.inference_mode():
        whole = write(model, batch, [])
        stop = whole[0][3]
        found = write(model, batch, [stop])
    assert all(len(row) == 10 for row in whole)
    cut = [row[: row.index(stop)] if stop in row else row for row in whole]
    assert found == cut
    assert texts_of(found, tokenizer) == [tokenizer.decode(row) for row in cut]


def test_a_prompt_and_its_answer_fit_the_length() -> None:
    tokenizer = bpe_tokenizer()
    prompts = encode_prompts(
        [[5] * 4, [6] * 9, [7, *[8] * 20]], [3, 3, 3], max_seq_len=10, tokenizer=tokenizer
    )
    assert [ids.tolist() for ids in prompts.ids] == [[5] * 4, [6] * 9, [8] * 9]
    assert prompts.limits.tolist() == [3, 1, 1]
    assert prompts.lengths.max() == 10
    assert prompts.num_cut == 1


def test_answers_end_at_the_tokens_of_the_tokenizer_and_of_the_model() -> None:
    model, tokenizer = tiny_llama(), bpe_tokenizer()
    model.generation_config.eos_token_id = [7, 9]
    assert stop_tokens(model, tokenizer) == {1, 7, 9}
