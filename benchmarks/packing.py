"""Tokens a second of training on Alpaca with packing against padding, and equal losses.

SmolLM2-135M, LoRA, batches of 4 conversations, padded to their longest, against batches of 4 rows
of 512 tokens that are filled up; one thread. A token is one of a conversation: padding is none. The
two take turns. A round of either sees the same conversations of one client.

    python benchmarks/packing.py [--quick]
"""

import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch
from setting import Settings, is_quick, print_machine, use_one_core

from scaling_fl.composition.data import load_data
from scaling_fl.composition.model import load_trainer
from scaling_fl.config import read_config
from scaling_fl.learning.task import Batch, Indices
from scaling_fl.learning.tasks.instruction import scoring
from scaling_fl.learning.tasks.instruction.examples import IGNORED
from scaling_fl.learning.training.batches import epoch_batches, packed_batches
from scaling_fl.learning.training.local import LocalTrainer

TARGET = 1.8
SETTINGS: Settings = {
    "device": "cpu",
    "task_name": "generalnlp",
    "model": "smollm2",
    "adapter": {"kind": "lora", "rank": 8, "targets": "q_proj,v_proj"},
    "optimiser": "adamw",
    "batch_size": 4,
    "max_seq_len": 512,
    "num_clients": 1,
    "num_local_steps": 1,
    "data": {"max_train_examples": 24, "max_test_examples": 4},
}


class Way:
    """One way to make batches of the same conversations."""

    def __init__(self, settings: Settings) -> None:
        self._config = read_config(settings)
        self._data = load_data(self._config, 1, _say_nothing)
        self.trainer: LocalTrainer = load_trainer(
            self._config, self._data, torch.device("cpu"), note=_say_nothing, stage=_say_nothing
        )
        self.batches = [self._data.train.batch(indices) for indices in self._cut()]
        self.num_tokens = int(self._data.train.lengths.sum())

    def _cut(self) -> list[Indices]:
        train, rng = self._data.train, np.random.default_rng(0)
        everything = self._data.partitions[0]
        size = self._config.batch_size
        if self._config.packing:
            width = self._config.max_seq_len
            return packed_batches(train.lengths, everything, num_rows=size, width=width, rng=rng)
        return epoch_batches(train.lengths, everything, batch_size=size, rng=rng)

    def tokens_per_second(self) -> float:
        start = self.trainer.vector.clone()
        began = time.process_time()
        self.trainer.train(start, self.batches, learning_rate=1e-4, seed=0)
        seconds = time.process_time() - began
        self.trainer.vector.copy_(start)
        return self.num_tokens / seconds

    def losses(self) -> torch.Tensor:
        """Return the summed loss of each conversation, in the order of their tokens."""
        self.trainer.model.eval()
        with torch.no_grad():
            found = [each for batch in self.batches for each in _losses(self.trainer, batch)]
        return torch.stack(found).sort().values


def _losses(trainer: LocalTrainer, batch: Batch) -> Sequence[torch.Tensor]:
    logits, labels = scoring.answers(trainer.model, batch)
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    learned = batch.tensors["labels"][:, 1:] != IGNORED
    # A conversation's answer is one run of learned tokens.
    begins = learned & ~torch.nn.functional.pad(learned, (1, 0))[:, :-1]
    numbers = begins.flatten().cumsum(0)[learned.flatten()] - 1
    sums = torch.zeros(int(numbers.max()) + 1).index_add_(0, numbers, losses)
    counts = torch.bincount(numbers)
    return list(sums / counts)


def _say_nothing(text: str) -> None:
    pass


def main() -> None:
    settings = SETTINGS | ({"model": "tiny"} if is_quick(__doc__) else {})
    print_machine()
    use_one_core()
    padded = Way(settings)
    packed = Way(settings | {"packing": True})
    difference = float((padded.losses() - packed.losses()).abs().max())
    rows = []
    for _ in range(2):
        rows.append((packed.tokens_per_second(), padded.tokens_per_second()))
        print(f"packed {rows[-1][0]:.0f}, padded {rows[-1][1]:.0f} tokens a second", flush=True)
    print_machine()
    cells = [sum(b.tensors["input_ids"].numel() for b in way.batches) for way in (padded, packed)]
    print(f"{padded.num_tokens} tokens in {cells[0]} places padded, {cells[1]} packed")
    print(f"largest difference of a conversation's mean loss: {difference:.1e} (target 1e-6)")
    ratio = statistics.median(a / b for a, b in rows)
    print(f"ratio: {ratio:.2f} (target {TARGET})")


if __name__ == "__main__":
    main()
