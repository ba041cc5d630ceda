"""Answers are learned alike whether examples are padded, packed or spread over several batches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scaling_fl.core.errors import UserError
from scaling_fl.learning.models.causal import load_causal
from scaling_fl.learning.tasks.instruction import scoring
from scaling_fl.learning.tasks.instruction.conversations import Conversations, Turn
from scaling_fl.learning.tasks.instruction.examples import (
    IGNORED,
    InstructionExamples,
    encode,
)
from scaling_fl.learning.tasks.instruction.labels import Encoder
from scaling_fl.learning.tasks.instruction.templates import template_of
from scaling_fl.learning.training.batches import first_fit, packed_batches
from scaling_fl.learning.training.local import LocalTrainer
from tests.causal_models import bpe_tokenizer, tiny_gpt2, tiny_llama

ANSWERS = ["no", "red green blue", "A. B. C. D. " * 3, "yes", "heart " * 8, "maybe red or green"]


def examples(
    tmp_path: Path, *, max_seq_len: int = 400, packing: bool = False
) -> InstructionExamples:
    tokenizer = bpe_tokenizer()
    said = [(Turn("user", f"Question {n}?"), Turn("assistant", a)) for n, a in enumerate(ANSWERS)]
    return encode(
        lambda: Conversations(said),
        lambda: Encoder(tokenizer, template_of("alpaca", tokenizer)),
        depends_on={"packing": packing},
        content={"answers": ANSWERS},
        max_seq_len=max_seq_len,
        pad_token_id=tokenizer.pad_token_id,
        packing=packing,
        cache_dir=tmp_path,
    )


def everything(found: InstructionExamples) -> Any:
    return found.batch(np.arange(len(found)))


def losses(model: Any, batch: Any) -> torch.Tensor:
    logits, labels = scoring.answers(model, batch)
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def longest(tmp_path: Path) -> int:
    return int(examples(tmp_path).lengths.max())


def test_examples_of_a_row_do_not_see_each_other(tmp_path: Path) -> None:
    width = 2 * longest(tmp_path)
    padded = everything(examples(tmp_path, max_seq_len=width))
    packed = everything(examples(tmp_path, max_seq_len=width, packing=True))
    model = tiny_llama()
    assert len(packed.tensors["input_ids"]) < len(padded.tensors["input_ids"])
    # The same tokens are learned, in the order of rows instead of that of examples.
    alone, together = (losses(model, batch).sort().values for batch in (padded, packed))
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_a_model_that_cannot_tell_packed_examples_apart_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "bloom"
    from transformers import BloomConfig, BloomForCausalLM

    BloomForCausalLM(
        BloomConfig(vocab_size=320, hidden_size=16, n_layer=1, n_head=2)
    ).save_pretrained(folder)
    options: Any = {
        "max_seq_len": 16,
        "seed": 0,
        "tokenizer": bpe_tokenizer(),
        "cache_dir": tmp_path,
    }
    with pytest.raises(UserError, match="packing must be False"):
        load_causal(str(folder), packing=True, **options)
    assert load_causal(str(folder), packing=False, **options) is not None


def test_the_head_sees_learned_positions_alone_and_gives_the_same_logits(tmp_path: Path) -> None:
    batch = everything(examples(tmp_path))
    for model in (tiny_llama(), tiny_gpt2()):
        inputs = {n: t for n, t in batch.tensors.items() if n != "labels"}
        labels = batch.tensors["labels"][:, 1:]
        whole = model(**inputs).logits[:, :-1][labels != IGNORED]
        torch.testing.assert_close(scoring.answers(model, batch)[0], whole)


def test_counts_of_parts_add_up_to_the_loss(tmp_path: Path) -> None:
    found = examples(tmp_path)
    model = tiny_llama()
    parts = [found.batch(np.array(part)) for part in ([0, 1, 2], [3], [4, 5])]
    counts = torch.stack([scoring.count(model, part) for part in parts]).sum(0)
    batch = everything(found)
    found_loss = scoring.loss(model, batch)
    mean, number = found_loss.mean.detach(), found_loss.weight
    metrics = scoring.metrics(counts)
    assert metrics["loss"] == pytest.approx(float(mean), abs=1e-6)
    assert metrics["perplexity"] == pytest.approx(float(mean.exp()), rel=1e-5)
    assert int(counts[1]) == number


def trained(tmp_path: Path, batches: list[list[int]], per_step: int) -> torch.Tensor:
    found = examples(tmp_path)
    trainer = LocalTrainer(tiny_llama(), scoring.loss, optimiser="sgd", batches_per_step=per_step)
    given = (found.batch(np.array(batch)) for batch in batches)
    result = trainer.train(trainer.vector.clone(), given, learning_rate=0.1, seed=0)
    assert result.num_seen == len(ANSWERS)
    assert result.num_steps == 1
    return trainer.vector


def test_batches_of_a_step_count_by_their_tokens(tmp_path: Path) -> None:
    whole = trained(tmp_path, [[0, 1, 2, 3, 4, 5]], 1)
    spread = trained(tmp_path, [[0], [1, 2, 3], [4, 5]], 3)
    torch.testing.assert_close(spread, whole, rtol=0, atol=2e-6)


def test_rows_are_filled_and_every_example_is_in_one_batch() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 40, 200)
    indices = np.arange(50, 200)
    batches = packed_batches(lengths, indices, num_rows=4, width=64, rng=rng)
    assert sorted(np.concatenate(batches).tolist()) == indices.tolist()
    for batch in batches:
        rows = first_fit(lengths[batch], 64)
        assert len(rows) <= 4
        assert all(lengths[batch][row].sum() <= 64 for row in rows)
    filled = sum(int(lengths[batch].sum()) for batch in batches[:-1])
    assert filled > 0.8 * 4 * 64 * (len(batches) - 1)


def test_conversations_that_are_cut_before_the_answer_are_counted(tmp_path: Path) -> None:
    lengths = examples(tmp_path, max_seq_len=400).lengths
    begin = int(lengths.min()) - 1
    found = examples(tmp_path, max_seq_len=begin)
    assert found.num_cut == len(ANSWERS)
    assert found.num_left_out + len(found) == len(ANSWERS)
    assert all(
        found.batch(np.array([n])).tensors["labels"].ne(IGNORED).any() for n in range(len(found))
    )
