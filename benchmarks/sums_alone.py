"""Exact sums of two workers with nothing around them; ``sums.py`` starts this for each checkout.

Prints one line of JSON: milliseconds by the clock and of CPU time of worker 0, and a digest.
"""

import hashlib
import importlib
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any

import torch

from scaling_fl.core.exact_sum import ExactSum

SIZE = 22_700_000  # the coordinates of MiniLM
NUM_ADDS, NUM_WORKERS, REPEATS = 8, 2, 5
SHARE = 0.9 / (NUM_ADDS * NUM_WORKERS)
CPU = torch.device("cpu")


def connect(rank: int, store_path: str) -> Any:
    """Meet the other worker; older checkouts have the module in another folder."""
    new, old = "scaling_fl.runtime.machines", "scaling_fl.runtime"
    module = importlib.import_module(f"{new if find_spec(new) else old}.exchange")
    meeting = module.Meeting(
        node_rank=0, num_nodes=1, local_index=rank, sites=[0, 1], store_path=store_path
    )
    return module.connect(meeting, CPU, print)


def work(rank: int, store_path: str, pipe: Connection) -> None:
    """Add up, merge and divide some times; worker 0 sends what that took."""
    torch.set_num_threads(1)
    exchange = connect(rank, store_path)
    own_memory = () if not hasattr(exchange, "zeros") else (exchange.zeros(SIZE, CPU),)
    sums = ExactSum(SIZE, CPU, *own_memory)
    integers = "integers" if hasattr(sums, "integers") else "units"  # as other checkouts name them
    update = torch.randn(SIZE, generator=torch.Generator().manual_seed(rank)) * 1e-3
    mean = torch.empty(SIZE)
    took: dict[str, list[tuple[float, float]]] = {}

    def measure(name: str, call: Callable[[], object]) -> None:
        began, began_cpu = time.perf_counter(), time.process_time()
        call()
        seconds = time.perf_counter() - began, time.process_time() - began_cpu
        took.setdefault(name, []).append(seconds)

    for _ in range(REPEATS):
        measure("clear", sums.clear)
        measure(f"{NUM_ADDS} adds", lambda: [sums.add(update, SHARE) for _ in range(NUM_ADDS)])
        exchange.gather([])  # so that no waiting for the other worker is measured
        measure("total", lambda: exchange.total(getattr(sums, integers)))
        measure("mean", lambda: sums.mean(mean, 1.0))
    medians = {
        name: [1e3 * statistics.median(column) for column in zip(*pairs, strict=True)]
        for name, pairs in took.items()
    }
    exchange.close()
    pipe.send({"ms": medians, "digest": hashlib.sha256(mean.numpy().tobytes()).hexdigest()})


def main() -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=work, args=(rank, f"{folder}/store", theirs))
            for rank in range(NUM_WORKERS)
        ]
        for process in processes:
            process.start()
        found = [ours.recv() for _ in processes]
        for process in processes:
            process.join()
    assert found[0]["digest"] == found[1]["digest"]
    print(json.dumps(found[0]))


if __name__ == "__main__":
    main()
