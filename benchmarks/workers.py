"""Worker processes that stay and run a round whenever they are told to."""

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch
from worker import Worker

from scaling_fl.core.records import RoundReport
from scaling_fl.runtime.machines.exchange import Meeting, connect

Round = Callable[..., tuple[RoundReport, float]]
"""Options of ``Worker.round`` -> its report and the CPU seconds of all workers."""


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What the workers of a federation are made of; texts are cut at ``max_seq_len`` tokens."""

    model: str
    kind: str
    num_steps: int
    num_workers: int
    batch_size: int = 16
    max_seq_len: int = 64
    optimiser: str = "adamw"


def serve(orders: Orders, rank: int, store_path: str, pipe: Connection) -> None:
    """Run rounds on demand, with one thread, until told None."""
    torch.set_num_threads(1)
    meeting = Meeting(
        node_rank=0,
        num_nodes=1,
        local_index=rank,
        sites=list(range(orders.num_workers)),
        store_path=store_path,
    )
    worker = Worker(
        orders.model,
        orders.kind,
        num_steps=orders.num_steps,
        batch_size=orders.batch_size,
        max_seq_len=orders.max_seq_len,
        optimiser=orders.optimiser,
        exchange=connect(meeting, torch.device("cpu"), lambda text: None),
    )
    pipe.send("ready")
    while (options := pipe.recv()) is not None:
        began = time.process_time()
        report = worker.round(**options)
        pipe.send((report, time.process_time() - began))
    worker.exchange.close()


@contextmanager
def workers(orders: Orders) -> Iterator[Round]:
    """Start the workers and yield a function that has them run a round."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    with tempfile.TemporaryDirectory() as folder:
        for rank in range(orders.num_workers):
            ours, theirs = context.Pipe()
            arguments = (orders, rank, f"{folder}/store", theirs)
            processes.append(context.Process(target=serve, args=arguments, daemon=True))
            processes[-1].start()
            theirs.close()
            pipes.append(ours)

        def run_round(**options: object) -> tuple[RoundReport, float]:
            for pipe in pipes:
                pipe.send(options)
            answers: list[tuple[RoundReport, float]] = [pipe.recv() for pipe in pipes]
            return answers[0][0], sum(seconds for _, seconds in answers)

        assert [pipe.recv() for pipe in pipes] == ["ready"] * orders.num_workers
        yield run_round
        for pipe in pipes:
            pipe.send(None)
        for process in processes:
            process.join()
