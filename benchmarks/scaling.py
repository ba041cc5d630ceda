"""How a round grows with clients, model size and workers, and what more clients take of memory.

Batches of 16 long texts cut at 64 tokens, AdamW, one thread for each worker. The number of steps
in all stays the same however many clients share them. With ``--against`` the same federations are
also compared with those of another checkout.
"""

import multiprocessing
import os
import re
import statistics
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

import checkouts
from federated import Federated, workers
from setting import (
    LONG,
    SMALL,
    Settings,
    median_ratio,
    one_epoch,
    print_machine,
    read_options,
    use_one_core,
)

COUNTS = (2, 4, 8, 16, 32, 64)
TOTAL_STEPS = 64
TIME_TARGET, MEMORY_TARGET = 1.3, 1.05


def clients(num_clients: int, settings: Settings = LONG) -> Settings:
    return one_epoch(num_clients, TOTAL_STEPS, settings)


def models() -> dict[str, Settings]:
    """Return runs of 4 clients x 4 steps by model."""
    return {model: one_epoch(4, 16, LONG | {"model": model}) for model in ("tiny", "minilm")}


class Clock:
    """Rounds' seconds by number of clients, by the wall and by CPU time."""

    def __init__(self) -> None:
        self.wall: dict[int, list[float]] = {}
        self.cpu: dict[int, list[float]] = {}
        self._num_steps = 0

    def measure(self, num_clients: int) -> None:
        federated = Federated(clients(num_clients))
        self._num_steps = 0
        began, began_cpu = time.perf_counter(), time.process_time()
        federated.round(check=self._count_step)
        self.wall.setdefault(num_clients, []).append(time.perf_counter() - began)
        self.cpu.setdefault(num_clients, []).append(time.process_time() - began_cpu)
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
    clock = Clock()
    few, *between, many = COUNTS
    order = [few, many, many, few, few, many][: 2 * num_pairs]
    for count in order if num_pairs == 1 else [*between, *order]:
        clock.measure(count)
    print("clients steps each  round s  ratio    CPU s  ratio")
    for count in sorted(clock.wall):
        clock.show(count)
    return (
        median_ratio(clock.wall[many], clock.wall[few]),
        median_ratio(clock.cpu[many], clock.cpu[few]),
    )


def grow_models_and_workers(num_rounds: int) -> None:
    """Time rounds of 4 clients x 4 steps, with 1 and 2 workers in turn."""
    print(f"{'model':>7} {'1 worker s':>10} {'2 workers s':>11} {'ratio':>6}")
    for model, settings in models().items():
        seconds: dict[int, list[float]] = {1: [], 2: []}
        with ExitStack() as stack:
            groups = {
                count: stack.enter_context(workers({model: settings}, count)) for count in seconds
            }
            reports = [run_round(model)[0] for run_round in groups.values()]
            assert len({report.metrics["train.loss"] for report in reports}) == 1
            for _ in range(num_rounds):
                for count, run_round in groups.items():
                    began = time.perf_counter()
                    run_round(model)
                    seconds[count].append(time.perf_counter() - began)
        one, two = (statistics.median(values) for values in seconds.values())
        ratio = median_ratio(seconds[1], seconds[2])
        print(f"{model:>7} {one:>10.2f} {two:>11.2f} {ratio:>6.2f}", flush=True)


def report_peak(num_clients: int, pipe: Connection) -> None:
    """Run a round of small batches and send this process's peak memory in MiB."""
    use_one_core()
    Federated(clients(num_clients, SMALL)).round()
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


def compared() -> dict[str, Settings]:
    """Return the runs that are compared with those of another checkout."""
    two = {"site_ids": [0, 1]}
    few, many = (one_epoch(count, 16, SMALL) for count in (2, 16))
    return {
        "tiny, 4 clients x 4 steps": models()["tiny"],
        "tiny, 4 clients x 4 steps, 2 workers": models()["tiny"] | two,
        "MiniLM, 2 clients x 8 small steps": few,
        "MiniLM, 16 clients x 1 small step": many,
        "MiniLM, 16 clients x 1 small step, 2 workers": many | two,
    }


def main() -> None:
    quick, against = read_options(__doc__)
    cores = os.sched_getaffinity(0)
    print_machine()
    if against:
        for title, settings in compared().items():
            checkouts.compare(title, settings, against, 2 if quick else 5)
    pairs = [(peak_memory(64), peak_memory(2)) for _ in range(1 if quick else 3)]
    for many, few in pairs:
        print(f"peak memory: 64 clients {many:.0f} MiB, 2 clients {few:.0f} MiB", flush=True)
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
