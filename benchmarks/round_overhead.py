"""One federated round against a bare PyTorch loop that does the same optimiser steps.

4 clients x 10 steps of 16 long texts, cut at 64 tokens, MiniLM, AdamW, one worker, one thread. The
two take turns at every step, so that both see the same machine.
"""

import statistics
import time
from collections.abc import Iterator

import torch
from setting import (
    LEARNING_RATE,
    SEED,
    is_quick,
    load_model,
    print_machine,
    split,
    use_one_core,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from worker import Worker

from scaling_fl.core.seeding import derive, numpy_generator
from scaling_fl.learning.task import Batch
from scaling_fl.learning.training.batches import epoch_batches

NUM_CLIENTS, STEPS, BATCH_SIZE, MAX_SEQ_LEN = 4, 10, 16, 64
TARGET, EXCHANGE_TARGET = 1.05, 0.02
State = dict[str, Tensor]


def bare_loop(model: nn.Module, start: State, clients: list[list[Batch]]) -> Iterator[Tensor]:
    """Train on each client's batches from the same start, yielding the loss after each step."""
    for client, batches in enumerate(clients):
        model.load_state_dict(start)
        model.train()
        torch.manual_seed(derive(SEED, "dropout", 1, client))  # the masks of the federated round
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True
        )
        for batch in batches:
            ids, mask = batch.tensors["input_ids"], batch.tensors["attention_mask"]
            logits = model(input_ids=ids, attention_mask=mask).logits
            loss = cross_entropy(logits, batch.tensors["labels"])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            yield loss.detach()


class Bare:
    """The bare loop, one step at a time, with its own clock and its own stream of dropout."""

    def __init__(self, model: nn.Module, start: State, clients: list[list[Batch]]) -> None:
        self._steps = bare_loop(model, start, clients)
        self._random = torch.get_rng_state()
        self.losses: list[float] = []
        self.seconds = self.cpu_seconds = 0.0
        self.away_seconds = self.away_cpu_seconds = 0.0

    def step(self) -> None:
        """Do the next step; all time in here is ``away`` from the federated round."""
        arrived, arrived_cpu = time.perf_counter(), time.process_time()
        theirs = torch.get_rng_state()
        torch.set_rng_state(self._random)
        began, began_cpu = time.perf_counter(), time.process_time()
        loss = next(self._steps)
        self.seconds += time.perf_counter() - began
        self.cpu_seconds += time.process_time() - began_cpu
        self.losses.append(float(loss))
        self._random = torch.get_rng_state()
        torch.set_rng_state(theirs)
        self.away_seconds += time.perf_counter() - arrived
        self.away_cpu_seconds += time.process_time() - arrived_cpu


def collated(worker: Worker) -> list[list[Batch]]:
    """Collate the batches of the federated round beforehand."""
    orders = [
        epoch_batches(
            worker.examples.lengths,
            part,
            batch_size=BATCH_SIZE,
            rng=numpy_generator(SEED, "order", 1, client, 0),
        )
        for client, part in enumerate(split(worker.examples.labels, NUM_CLIENTS))
    ]
    return [[worker.examples.batch(indices) for indices in order] for order in orders]


def compare(worker: Worker, bare: Bare) -> tuple[float, float, float]:
    """Run a round with a bare step before each of its own; returns two ratios and a share.

    The ratio of the times, the ratio of the CPU times, and the exchange's share of the round.
    """
    began, began_cpu = time.perf_counter(), time.process_time()
    report = worker.round(NUM_CLIENTS, check=bare.step)
    seconds = time.perf_counter() - began - bare.away_seconds
    cpu_seconds = time.process_time() - began_cpu - bare.away_cpu_seconds
    assert len(bare.losses) == NUM_CLIENTS * STEPS
    difference = abs(report.metrics["train.loss"] - statistics.fmean(bare.losses))
    assert difference < 1e-6, f"the losses differ by {difference}"
    ratio, cpu_ratio = seconds / bare.seconds, cpu_seconds / bare.cpu_seconds
    share = report.metrics["time.exchange_seconds"] / seconds
    print(f"{seconds:>8.2f} {bare.seconds:>8.2f} {ratio:>6.3f} {cpu_ratio:>11.3f} {share:>8.2%}")
    return ratio, cpu_ratio, share


def main() -> None:
    num_rounds = 2 if is_quick(__doc__) else 5
    use_one_core()
    worker = Worker(
        "minilm",
        "long",
        num_steps=NUM_CLIENTS * STEPS,
        batch_size=BATCH_SIZE,
        max_seq_len=MAX_SEQ_LEN,
    )
    clients = collated(worker)
    model = load_model("minilm", kind="long", max_seq_len=MAX_SEQ_LEN)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    print_machine()
    print(f"{'round s':>8} {'bare s':>8} {'ratio':>6} {'by CPU time':>11} {'exchange':>8}")
    rows = [compare(worker, Bare(model, start, clients)) for _ in range(num_rounds + 1)]
    # In the first row the federated side's pages and kernels are new.
    ratio, cpu_ratio, share = (statistics.median(c) for c in zip(*rows[1:], strict=True))
    print_machine()
    print(f"by CPU time: {cpu_ratio:.3f}")
    print(f"exchange: {share:.2%} (target {EXCHANGE_TARGET:.0%})")
    print(f"ratio: {ratio:.3f} (target {TARGET})")


if __name__ == "__main__":
    main()
