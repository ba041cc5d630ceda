"""How a round grows with clients, model size and workers, and what more clients take of memory.

Batches of 16 long texts cut at 64 tokens, AdamW, one thread for each worker. The number of steps
in all stays the same however many clients share them.
"""

import multiprocessing
import os
import re
import statistics
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

from setting import is_quick, median_ratio, print_machine, use_one_core
from worker import Worker
from workers import Orders, workers

COUNTS = (2, 4, 8, 16, 32, 64)
TOTAL_STEPS = 64
MODELS = ("tiny", "minilm-3-layers", "minilm")
TIME_TARGET, MEMORY_TARGET = 1.3, 1.05


class Clock:
    """Rounds' seconds by number of clients, by the wall and by CPU time."""

    def __init__(self) -> None:
        self.wall: dict[int, list[float]] = {count: [] for count in COUNTS}
        self.cpu: dict[int, list[float]] = {count: [] for count in COUNTS}
        self._num_steps = 0

    def measure(self, worker: Worker, num_clients: int) -> None:
        self._num_steps = 0
        began, began_cpu = time.perf_counter(), time.process_time()
        worker.round(num_clients, check=self._count_step)
        self.wall[num_clients].append(time.perf_counter() - began)
        self.cpu[num_clients].append(time.process_time() - began_cpu)
        assert self._num_steps == TOTAL_STEPS

    def _count_step(self) -> None:
        self._num_steps += 1

    def show(self, num_clients: int) -> None:
        columns = (
            f"{statistics.median(seconds[num_clients]):>8.2f}"
            f" {statistics.median(seconds[num_clients]) / statistics.median(seconds[2]):>6.3f}"
            for seconds in (self.wall, self.cpu)
        )
        print(f"{num_clients:>7} {TOTAL_STEPS // num_clients:>10} {' '.join(columns)}", flush=True)


def grow_clients(num_pairs: int) -> tuple[float, float]:
    """Time rounds of 2 to 64 clients on one worker.

    Returns the ratio of 64 clients to 2, by the wall and by CPU time.
    """
    use_one_core()
    worker = Worker("minilm", "long", num_steps=TOTAL_STEPS)
    clock = Clock()
    few, *between, many = COUNTS
    for count in [*between, *[few, many, many, few, few, many][: 2 * num_pairs]]:
        clock.measure(worker, count)
    print("clients steps each  round s  ratio    CPU s  ratio")
    for count in COUNTS:
        clock.show(count)
    return (
        median_ratio(clock.wall[many], clock.wall[few]),
        median_ratio(clock.cpu[many], clock.cpu[few]),
    )


def grow_models_and_workers(num_rounds: int) -> None:
    """Time rounds of 4 clients x 4 steps, with 1 and 2 workers in turn."""
    print(f"{'model':>15} {'1 worker s':>10} {'2 workers s':>11} {'ratio':>6}")
    for model in MODELS:
        seconds: dict[int, list[float]] = {1: [], 2: []}
        with ExitStack() as stack:
            groups = {
                count: stack.enter_context(
                    workers(Orders(model=model, kind="long", num_steps=16, num_workers=count))
                )
                for count in seconds
            }
            reports = [run_round(num_clients=4)[0] for run_round in groups.values()]
            assert len({report.metrics["train.loss"] for report in reports}) == 1
            for _ in range(num_rounds):
                for count, run_round in groups.items():
                    began = time.perf_counter()
                    run_round(num_clients=4)
                    seconds[count].append(time.perf_counter() - began)
        one, two = (statistics.median(values) for values in seconds.values())
        ratio = median_ratio(seconds[1], seconds[2])
        print(f"{model:>15} {one:>10.2f} {two:>11.2f} {ratio:>6.2f}", flush=True)


def report_peak(num_clients: int, pipe: Connection) -> None:
    """Run a round of 64 steps with batches of 4 and send this process's peak memory in MiB."""
    use_one_core()
    Worker("minilm", "long", num_steps=TOTAL_STEPS, batch_size=4).round(num_clients)
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    pipe.send(int(found[1]) / 1024)


def peak_memory(num_clients: int) -> float:
    """Measure a fresh process's peak in MiB; the data is the same for any number of clients."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=report_peak, args=(num_clients, theirs))
    process.start()
    peak: float = ours.recv()
    process.join()
    return peak


def main() -> None:
    quick = is_quick(__doc__)
    cores = os.sched_getaffinity(0)
    print_machine()
    pairs = [(peak_memory(64), peak_memory(2)) for _ in range(1 if quick else 3)]
    for many, few in pairs:
        print(f"peak memory: 64 clients {many:.0f} MiB, 2 clients {few:.0f} MiB")
    grow_models_and_workers(2 if quick else 5)
    time_ratio, cpu_ratio = grow_clients(1 if quick else 3)
    os.sched_setaffinity(0, cores)
    print_machine()
    memory_ratio = median_ratio(*zip(*pairs, strict=True))
    print(f"peak memory of 64 clients to 2, ratio: {memory_ratio:.3f} (target {MEMORY_TARGET})")
    print(f"round of 64 clients to 2, by CPU time: {cpu_ratio:.3f}")
    print(f"round of 64 clients to 2, ratio: {time_ratio:.3f} (target {TIME_TARGET})")


if __name__ == "__main__":
    main()
