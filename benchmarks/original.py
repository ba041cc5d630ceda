"""The original system's way of running a round, written anew and plainly.

A fresh pool of spawned processes in every round, each client's model and optimiser handed to it,
every batch tokenised and padded to the full length, no attention mask, the optimiser's default
step, and sums taken parameter by parameter.
"""

import statistics
from typing import Any, NamedTuple, cast

import torch
import torch.multiprocessing
from setting import Settings
from torch import nn
from torch.nn.functional import cross_entropy

from scaling_fl.composition.data import load_data
from scaling_fl.config import read_config
from scaling_fl.learning.tasks.classification.family import Classification
from scaling_fl.learning.text.labelled import subset

OPTIMISERS = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
Examples = tuple[list[str], torch.Tensor]


class Trained(NamedTuple):
    """What a client reports: its mean loss and its number of steps."""

    loss: float
    steps: int


def train_original(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    tokenizer: Any,
    examples: Examples,
    batch_size: int,
    max_seq_len: int,
) -> Trained:
    """Train one client in a pool's process; the parameters lie in shared memory."""
    torch.set_num_threads(1)
    texts, labels = examples
    model.train()
    losses = []
    for start in range(0, len(texts), batch_size):
        encoded = tokenizer(
            texts[start : start + batch_size],
            padding="max_length",
            truncation=True,
            max_length=max_seq_len,
            return_tensors="pt",
        )
        optimiser.zero_grad()
        logits = model(input_ids=encoded["input_ids"]).logits
        loss = cross_entropy(logits, labels[start : start + batch_size])
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return Trained(statistics.fmean(losses), len(losses))


class Original:
    """The original's way: one model per site, averaged by the parent."""

    def __init__(self, settings: Settings, num_workers: int) -> None:
        self._config, self._num_workers = read_config(settings), num_workers
        data = load_data(self._config, settings["num_clients"], lambda text: None)
        task = cast(Classification, data.task)
        texts = task.corpus.load("train", self._config.train_path)
        chosen = subset(texts, len(data.train), self._config.data_seed)
        parts = [chosen.take(part) for part in data.partitions]
        self._tokenizer = task.tokenizer
        self._examples = [(part.texts, torch.from_numpy(part.labels)) for part in parts]
        self._models = [task.load_model().share_memory() for _ in parts]
        self._start = {name: t.clone() for name, t in self._models[0].state_dict().items()}

    def tasks(self) -> list[tuple[Any, ...]]:
        """Return what ``train_original`` is given for each client, all of them at the start."""
        make, rate = OPTIMISERS[self._config.optimiser], self._config.learning_rate
        sizes = self._config.batch_size, self._config.max_seq_len
        for model in self._models:
            model.load_state_dict(self._start)
        return [
            (model, make(model.parameters(), lr=rate), self._tokenizer, examples, *sizes)
            for model, examples in zip(self._models, self._examples, strict=True)
        ]

    def round(self, tasks: list[tuple[Any, ...]]) -> list[Trained]:
        with torch.multiprocessing.get_context("spawn").Pool(self._num_workers) as pool:
            reports = pool.starmap(train_original, tasks, chunksize=1)
        with torch.no_grad():
            for copies in zip(*(model.parameters() for model in self._models), strict=True):
                mean = sum(parameter / len(copies) for parameter in copies)
                for parameter in copies:
                    parameter.copy_(mean)
        return reports
