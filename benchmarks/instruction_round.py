"""A round of instruction tuning against a bare loop of PyTorch and PEFT over the same batches.

4 clients x 10 steps of 2 Alpaca conversations, cut at 96 tokens, SmolLM2-135M, LoRA on queries and
values, AdamW, one worker, one thread. The bare loop has the model compute its own loss. The two
take turns at every step, so that both see the same machine. After that the peak memory of a worker
for 2 and for 20 clients of one step each, in processes of their own.

    python benchmarks/instruction_round.py [--quick]
"""

import multiprocessing
import resource
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from federated import Federated
from setting import Settings, is_quick, print_machine, use_one_core
from torch import Tensor

from scaling_fl.composition.data import load_data
from scaling_fl.composition.tasks import make_task
from scaling_fl.config import read_config
from scaling_fl.core.seeding import numpy_generator
from scaling_fl.learning.task import Batch
from scaling_fl.learning.training.batches import epoch_batches

TARGET, MEMORY_TARGET = 1.03, 1.05
SETTINGS: Settings = {
    "device": "cpu",
    "num_threads": 1,
    "task_name": "generalnlp",
    "model": "smollm2",
    "adapter": {"kind": "lora", "rank": 8, "alpha": 16.0, "targets": "q_proj,v_proj"},
    "optimiser": "adamw",
    "learning_rate": 3e-4,
    "batch_size": 2,
    "max_seq_len": 96,
    "num_local_steps": 10,
    "num_clients": 4,
    "data": {"max_train_examples": 200, "max_test_examples": 4},
}


class BareLoop:
    """Model, PEFT and optimiser as their libraries have them, one step at a time."""

    def __init__(self, settings: Settings) -> None:
        from peft import LoraConfig, get_peft_model

        config = read_config(settings)
        data = load_data(config, settings["num_clients"], lambda text: None)
        adapter = LoraConfig(
            r=config.adapter.rank,
            lora_alpha=int(config.adapter.alpha),
            target_modules=list(config.adapter.targets or ()),
            task_type="CAUSAL_LM",
        )
        self._model: Any = get_peft_model(make_task(config).load_model(), adapter)  # type: ignore[arg-type]
        self._rate = config.learning_rate
        self._clients = [
            [data.train.batch(indices) for indices in self._order(config, data, client)]
            for client in range(settings["num_clients"])
        ]

    @staticmethod
    def _order(config: Any, data: Any, client: int) -> list[Any]:
        rng = numpy_generator(config.seed, "order", 1, client, 0)
        part = data.partitions[client]
        order = epoch_batches(data.train.lengths, part, batch_size=config.batch_size, rng=rng)
        return order[: config.num_local_steps]

    def restart(self) -> None:
        """Go back to the first step of the round."""
        self._steps = self._loop()
        self.losses: list[float] = []
        self.seconds = self.cpu_seconds = 0.0

    def step(self) -> None:
        began, began_cpu = time.perf_counter(), time.process_time()
        loss = next(self._steps)
        self.seconds += time.perf_counter() - began
        self.cpu_seconds += time.process_time() - began_cpu
        self.losses.append(float(loss))

    def _loop(self) -> Iterator[Tensor]:
        trained = {n: p for n, p in self._model.named_parameters() if p.requires_grad}
        start = {name: p.detach().clone() for name, p in trained.items()}
        for batches in self._clients:
            with torch.no_grad():
                for name, parameter in trained.items():
                    parameter.copy_(start[name])
            self._model.train()
            optimiser = torch.optim.AdamW(
                trained.values(), lr=self._rate, weight_decay=0.0, fused=True
            )
            for batch in batches:
                loss = self._loss(batch)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                yield loss.detach()
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(start[name])

    def _loss(self, batch: Batch) -> Tensor:
        loss: Tensor = self._model(**batch.tensors).loss
        return loss


def compare(federated: Federated, bare: BareLoop) -> tuple[float, float]:
    """Run a round with a bare step before each of its own; returns the ratios of both times."""
    bare.restart()
    began, began_cpu = time.perf_counter(), time.process_time()
    federated.round(check=bare.step)
    seconds = time.perf_counter() - began - bare.seconds
    cpu_seconds = time.process_time() - began_cpu - bare.cpu_seconds
    ratio, cpu_ratio = seconds / bare.seconds, cpu_seconds / bare.cpu_seconds
    print(f"{seconds:>8.2f} {bare.seconds:>8.2f} {ratio:>6.3f} {cpu_ratio:>11.3f}", flush=True)
    return ratio, cpu_ratio


def peak_bytes(settings: Settings) -> int:
    """Run one round in a process of its own; returns the most memory that it had."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return int(pool.apply(_peak_of_round, (settings,)))


def _peak_of_round(settings: Settings) -> int:
    Federated(settings).round()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    settings = SETTINGS | ({"model": "tiny", "max_seq_len": 256} if is_quick(__doc__) else {})
    print_machine()
    use_one_core()
    federated, bare = Federated(settings), BareLoop(settings)
    print(f"{'round s':>8} {'bare s':>8} {'ratio':>6} {'by CPU time':>11}")
    rows = [compare(federated, bare) for _ in range(3)]
    # In the first row the pages and kernels are new.
    ratio, cpu_ratio = (statistics.median(column) for column in zip(*rows[1:], strict=True))
    del federated, bare
    few, many = (
        peak_bytes(settings | {"num_clients": number, "num_local_steps": 1}) for number in (2, 20)
    )
    print_machine()
    print(f"memory: {few / 1e9:.2f} GB for 2 clients, {many / 1e9:.2f} GB for 20")
    print(f"ratio of memory: {many / few:.3f} (target {MEMORY_TARGET})")
    print(f"by CPU time: {cpu_ratio:.3f}")
    print(f"ratio: {ratio:.3f} (target {TARGET})")


if __name__ == "__main__":
    main()
