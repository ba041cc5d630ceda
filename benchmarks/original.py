"""The original system's way of running a round, written anew and plainly.

A fresh pool of spawned processes in every round, each client's model and optimiser handed to it,
every batch tokenised and padded to the full length, no attention mask, the optimiser's default
step, and sums taken parameter by parameter.
"""

import statistics
from typing import Any, NamedTuple

import torch
import torch.multiprocessing
from setting import LEARNING_RATE, load_model, read_texts, split, tokenizer_of
from torch import nn
from torch.nn.functional import cross_entropy

NUM_CLIENTS, NUM_WORKERS, BATCH_SIZE, MAX_SEQ_LEN = 4, 2, 16, 128
OPTIMISERS = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
Examples = tuple[list[str], torch.Tensor]


class Trained(NamedTuple):
    """What a client reports: its mean loss and its number of steps."""

    loss: float
    steps: int


def train_original(
    model: nn.Module, optimiser: torch.optim.Optimizer, tokenizer: Any, examples: Examples
) -> Trained:
    """Train one client in a pool's process; the parameters lie in shared memory."""
    torch.set_num_threads(1)
    texts, labels = examples
    model.train()
    losses = []
    for start in range(0, len(texts), BATCH_SIZE):
        encoded = tokenizer(
            texts[start : start + BATCH_SIZE],
            padding="max_length",
            truncation=True,
            max_length=MAX_SEQ_LEN,
            return_tensors="pt",
        )
        optimiser.zero_grad()
        logits = model(input_ids=encoded["input_ids"]).logits
        loss = cross_entropy(logits, labels[start : start + BATCH_SIZE])
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return Trained(statistics.fmean(losses), len(losses))


class Original:
    """The original's way: one model per site, averaged by the parent."""

    def __init__(self, kind: str, steps: int, optimiser: str) -> None:
        labelled = read_texts(kind, NUM_CLIENTS * steps * BATCH_SIZE)
        parts = [labelled.take(part) for part in split(labelled.labels, NUM_CLIENTS)]
        self._examples = [(part.texts, torch.from_numpy(part.labels)) for part in parts]
        self._optimiser = optimiser
        self._models = [
            load_model("minilm", kind=kind, max_seq_len=MAX_SEQ_LEN).share_memory() for _ in parts
        ]
        self._start = {name: t.clone() for name, t in self._models[0].state_dict().items()}

    def restart(self) -> None:
        for model in self._models:
            model.load_state_dict(self._start)

    def round(self) -> list[Trained]:
        make = OPTIMISERS[self._optimiser]
        tasks = [
            (model, make(model.parameters(), lr=LEARNING_RATE), tokenizer_of("minilm"), examples)
            for model, examples in zip(self._models, self._examples, strict=True)
        ]
        with torch.multiprocessing.get_context("spawn").Pool(NUM_WORKERS) as pool:
            reports = pool.starmap(train_original, tasks, chunksize=1)
        with torch.no_grad():
            for copies in zip(*(model.parameters() for model in self._models), strict=True):
                mean = sum(parameter / NUM_CLIENTS for parameter in copies)
                for parameter in copies:
                    parameter.copy_(mean)
        return reports
