"""What crosses between workers, over real connections between real processes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from scaling_fl.core.exchange import SingleExchange
from scaling_fl.runtime.machines.exchange import connect, explain_lost_connection
from scaling_fl.runtime.machines.meeting import Meeting
from tests.servers import free_port

CPU = torch.device("cpu")
# Every worker does the same calls in one order and prints what it got.
WORKER = """
import json, sys, torch
from scaling_fl.runtime.machines.exchange import connect
from scaling_fl.runtime.machines.meeting import Meeting
torch.set_num_threads(1)
exchange = connect(Meeting(**json.loads(sys.argv[1])), torch.device("cpu"), print)
rank = exchange.rank
try:
    exchange.total(torch.ones(1))
except TypeError as error:
    refused = str(error)
units = exchange.zeros(100_003, torch.device("cpu"))
zeros = not units.any()
units += torch.arange(100_003) + 2**60 * rank
exchange.total(units)
expected = exchange.size * torch.arange(100_003) + sum(range(exchange.size)) * 2**60
in_memory = torch.equal(units, expected)
units.fill_(rank)
big = torch.full((100_003,), 2**60 + rank, dtype=torch.int64)
found = {
    "rank": rank, "size": exchange.size, "sites": exchange.sites, "refused": refused,
    "total": exchange.total(torch.arange(5) * 10**rank).tolist(),
    "big": exchange.total(big).unique().tolist(),
    "in memory": [zeros, in_memory, exchange.total(units).unique().tolist()],
    "nowhere": exchange.total(exchange.zeros(0, torch.device("cpu"))).tolist(),
    "broadcast": exchange.broadcast(torch.full((3,), 0.1 + rank)).tolist(),
    "gather": exchange.gather([{"from": rank, "text": "h\\u00e9" * rank}] * rank),
    "nothing": exchange.gather([]),
}
exchange.close()
print(json.dumps(found))
"""


def run_workers(meetings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, json.dumps(meeting)], stdout=subprocess.PIPE, text=True
        )
        for meeting in meetings
    ]
    try:
        outputs = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def expected(size: int, sites: list[int]) -> list[dict[str, Any]]:
    """What every worker of ``size`` must report, in the order of their ranks."""
    ones = sum(10**rank for rank in range(size))
    sum_of_big = size * 2**60 + sum(range(size))
    wrapped = (sum_of_big + 2**63) % 2**64 - 2**63
    each = {
        "size": size,
        "sites": sites,
        "refused": "a sum over workers must be int64, got torch.float32",
        "total": [ones * i for i in range(5)],
        "big": [wrapped],
        "in memory": [True, True, [sum(range(size))]],
        "nowhere": [],
        "broadcast": torch.full((3,), 0.1).tolist(),
        "gather": [
            {"from": rank, "text": "hé" * rank} for rank in range(size) for _ in range(rank)
        ],
        "nothing": [],
    }
    return [{"rank": rank} | each for rank in range(size)]


@pytest.mark.slow
def test_workers_of_one_machine_exchange_sums_states_and_records(tmp_path: Path) -> None:
    meeting = {"node_rank": 0, "num_nodes": 1, "sites": [0, 2, 1, 0]}
    meeting["store_path"] = str(tmp_path / "store")
    found = run_workers([meeting | {"local_index": index} for index in range(3)])
    assert found == expected(3, sites=[0, 2, 1, 0])


@pytest.mark.slow
def test_machines_with_different_sites_exchange_as_one_group() -> None:
    place = {"num_nodes": 2, "host": "127.0.0.1", "port": free_port()}
    first = place | {"node_rank": 0, "sites": [0, 1, 1]}
    second = place | {"node_rank": 1, "sites": [0, 0], "local_index": 0}
    found = run_workers([first | {"local_index": 0}, first | {"local_index": 1}, second])
    assert found == expected(3, sites=[0, 1, 1, 2, 2])


def test_one_worker_needs_no_group_whatever_its_sites() -> None:
    meeting = Meeting(node_rank=0, num_nodes=1, local_index=0, sites=[0, 0, 0])
    exchange = connect(meeting, CPU, print)
    assert isinstance(exchange, SingleExchange)
    assert (exchange.rank, exchange.size, exchange.sites) == (0, 1, [0, 0, 0])
    tensor = torch.arange(3)
    assert exchange.total(tensor) is tensor
    assert exchange.broadcast(tensor) is tensor
    assert exchange.gather([{"a": 1}]) == [{"a": 1}]


def test_a_connection_that_was_never_made_names_the_network_interface(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    refused = "[/pytorch/gloo/transport/tcp/pair.cc:144] timed out connecting: SO_ERROR: refused"
    assert explain_lost_connection(RuntimeError(refused)) == (
        "lost the connection to another worker (timed out connecting: SO_ERROR: refused); read the "
        "output of that worker, and check that the network interface GLOO_SOCKET_IFNAME=lo reaches "
        "the other machines."
    )
    closed = "[/pytorch/gloo/transport/tcp/pair.cc:144] Connection closed by peer"
    assert "GLOO_SOCKET_IFNAME" not in explain_lost_connection(RuntimeError(closed))
