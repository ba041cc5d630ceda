"""One federated round against a bare PyTorch loop that does the same optimiser steps.

4 clients x 10 steps of 16 long texts, cut at 64 tokens, MiniLM, AdamW, one worker, one thread. The
two take turns at every step, so that both see the same machine. With ``--against`` a round of small
steps is also compared with that of another checkout.
"""

import statistics
import time
from collections.abc import Iterator

import torch
from checkouts import compare as compare_checkouts
from federated import Federated
from setting import LONG, SMALL, Settings, one_epoch, print_machine, read_options, use_one_core
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from scaling_fl.composition.data import load_data
from scaling_fl.config import read_config
from scaling_fl.core.seeding import derive, numpy_generator
from scaling_fl.learning.task import Batch
from scaling_fl.learning.training.batches import epoch_batches

TARGET, EXCHANGE_TARGET = 1.05, 0.02
SETTINGS = one_epoch(4, 40, LONG)
COMPARED = one_epoch(4, 16, SMALL)


class Bare:
    """The bare loop, one step at a time, with its own clock and its own stream of dropout."""

    def __init__(self, settings: Settings) -> None:
        config = read_config(settings)
        self._seed, self._learning_rate = config.seed, config.learning_rate
        data = load_data(config, settings["num_clients"], lambda text: None)
        self._model = data.task.load_model()
        self._start = {name: t.clone() for name, t in self._model.state_dict().items()}
        orders = [
            epoch_batches(
                data.train.lengths,
                part,
                batch_size=config.batch_size,
                rng=numpy_generator(config.seed, "order", 1, client, 0),
            )
            for client, part in enumerate(data.partitions)
        ]
        self._clients = [[data.train.batch(indices) for indices in order] for order in orders]

    def restart(self) -> None:
        """Go back to the first step of the round."""
        self._steps = bare_loop(
            self._model, self._start, self._clients, self._seed, self._learning_rate
        )
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


def bare_loop(
    model: nn.Module,
    start: dict[str, Tensor],
    clients: list[list[Batch]],
    seed: int,
    learning_rate: float,
) -> Iterator[Tensor]:
    """Train on each client's batches from the same start, yielding the loss after each step."""
    for client, batches in enumerate(clients):
        model.load_state_dict(start)
        model.train()
        torch.manual_seed(derive(seed, "dropout", 1, client))  # the masks of the federated round
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=learning_rate, weight_decay=0.0, fused=True
        )
        for batch in batches:
            ids, mask = batch.tensors["input_ids"], batch.tensors["attention_mask"]
            logits = model(input_ids=ids, attention_mask=mask).logits
            loss = cross_entropy(logits, batch.tensors["labels"])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            yield loss.detach()


def compare(federated: Federated, bare: Bare) -> tuple[float, float, float]:
    """Run a round with a bare step before each of its own; returns two ratios and a share.

    The ratio of the times, the ratio of the CPU times, and the exchange's share of the round.
    """
    bare.restart()
    began, began_cpu = time.perf_counter(), time.process_time()
    report = federated.round(check=bare.step)
    seconds = time.perf_counter() - began - bare.away_seconds
    cpu_seconds = time.process_time() - began_cpu - bare.away_cpu_seconds
    difference = abs(report.metrics["train.loss"] - statistics.fmean(bare.losses))
    assert difference < 1e-6, f"the losses differ by {difference}"
    ratio, cpu_ratio = seconds / bare.seconds, cpu_seconds / bare.cpu_seconds
    share = report.metrics["time.exchange_seconds"] / seconds
    print(f"{seconds:>8.2f} {bare.seconds:>8.2f} {ratio:>6.3f} {cpu_ratio:>11.3f} {share:>8.2%}")
    return ratio, cpu_ratio, share


def main() -> None:
    quick, against = read_options(__doc__)
    print_machine()
    if against:
        compare_checkouts("4 clients x 4 small steps", COMPARED, against, 2 if quick else 5)
    use_one_core()
    federated, bare = Federated(SETTINGS), Bare(SETTINGS)
    print(f"{'round s':>8} {'bare s':>8} {'ratio':>6} {'by CPU time':>11} {'exchange':>8}")
    rows = [compare(federated, bare) for _ in range(3 if quick else 6)]
    # In the first row the federated side's pages and kernels are new.
    ratio, cpu_ratio, share = (statistics.median(c) for c in zip(*rows[1:], strict=True))
    print_machine()
    print(f"by CPU time: {cpu_ratio:.3f}")
    print(f"exchange: {share:.2%} (target {EXCHANGE_TARGET:.0%})")
    print(f"ratio: {ratio:.3f} (target {TARGET})")


if __name__ == "__main__":
    main()
