"""Sums in the memory that workers of one machine share."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from scaling_fl.runtime.machines.shared import SharedIntegers, map_shared_integers

# The first worker ends in the middle of a round; the second one must find that out.
LEFT_ALONE = """
import os, sys, torch
from scaling_fl.runtime.machines.exchange import connect
from scaling_fl.runtime.machines.meeting import Meeting
cpu, rank = torch.device("cpu"), int(sys.argv[1])
meeting = Meeting(
    node_rank=0, num_nodes=1, local_index=rank, sites=[0, 1], store_path=sys.argv[2]
)
exchange = connect(meeting, cpu, print)
units = exchange.zeros(1000, cpu)
exchange.total(units.fill_(1))
if rank == 0:
    os.kill(os.getpid(), 9)
exchange.total(units)
"""


def vectors(num_workers: int, size: int) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    return [
        torch.randint(-(2**62), 2**62, (size,), generator=rng) // num_workers
        for _ in range(num_workers)
    ]


@pytest.mark.parametrize("num_workers", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [1, 5, 100_003])
def test_every_vector_becomes_the_sum_of_all(num_workers: int, size: int) -> None:
    parts = vectors(num_workers, size)
    expected = torch.stack(parts).sum(0)
    for rank in reversed(range(num_workers)):
        SharedIntegers(rank, parts).add_up()
    assert all(torch.equal(part, expected) for part in parts)


def test_shared_memory_leaves_nothing_behind() -> None:
    before = set(os.listdir("/proc/self/fd")), set(os.listdir("/dev/shm"))
    shared = map_shared_integers(10, 0, lambda records: records)
    assert shared is not None
    assert shared.mine.tolist() == [0] * 10
    assert (set(os.listdir("/proc/self/fd")), set(os.listdir("/dev/shm"))) == before


@pytest.mark.parametrize("step", ["path", "mapped"])
def test_nobody_shares_when_one_worker_cannot(step: str) -> None:
    """The other worker has no such memory, or may not open this one's."""

    def gather(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        missing = {"path": None, "mapped": False}
        other = {key: missing[key] if key == step else records[0][key] for key in records[0]}
        return [*records, other]

    before = os.listdir("/proc/self/fd")
    assert map_shared_integers(10, 0, gather) is None
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.slow
def test_a_worker_whose_peer_was_killed_does_not_wait(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LEFT_ALONE, str(rank), str(tmp_path / "store")],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [-9, 1]
    assert "Connection closed by peer" in errors[1] or "Connection reset" in errors[1]
