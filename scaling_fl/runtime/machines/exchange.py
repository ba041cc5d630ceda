"""Everything that crosses between workers; torch.distributed lives only here.

One worker needs no process group: ``SingleExchange`` is the identity. Several workers on one
machine meet through a file; several machines through a TCP store that the first worker hosts at
``MASTER_ADDR:MASTER_PORT`` (or that torchrun's agent hosts).
"""

import json
import os
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from scaling_fl.core.exchange import Exchange, SingleExchange
from scaling_fl.runtime.machines.shared import SharedIntegers, map_shared_integers

JOIN_SLICE = timedelta(seconds=5)
COLLECTIVE_TIMEOUT = timedelta(
    hours=6
)  # a dead peer is found by its closed connection, not by this

FAREWELL_SECONDS = 2.0
"""Time for the other machines to read what this one has told them before it ends."""


class PeerLost(RuntimeError):
    """Another worker is not there or no longer there, so this one cannot go on."""


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """Where this worker meets the others.

    ``store_path`` for one machine, ``host`` and ``port`` for several. ``sites`` lists, for every
    site of this node, the local worker that runs it.
    """

    node_rank: int
    num_nodes: int
    local_index: int
    sites: list[int]
    store_path: str | None = None
    host: str = "127.0.0.1"
    port: int = 0
    agent_store: bool = False
    common_settings: dict[str, Any] = field(default_factory=dict)
    """What must be the same on all machines, by name."""


class GroupExchange:
    """The exchange of several workers over NCCL (GPU) or gloo (CPU).

    With ``one_machine``, sums on CPUs meet in shared memory.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        sites: list[int],
        device: torch.device,
        store: dist.Store,
        *,
        one_machine: bool = False,
    ) -> None:
        self.rank, self.size, self.sites = rank, size, sites
        # The first worker's store serves all others, so it lives as long as its exchange.
        self._device, self._store = device, store
        self._shares_memory = one_machine and device.type == "cpu"
        self._shared: dict[tuple[int, int], SharedIntegers] = {}

    def zeros(self, size: int, device: torch.device) -> Tensor:
        """Make an int64 vector of zeros, in memory where ``total`` is fast if there is such."""
        shared = map_shared_integers(size, self.rank, self.gather) if self._shares_memory else None
        if shared is None:
            return torch.zeros(size, dtype=torch.int64, device=device)
        self._shared[_address(shared.mine)] = shared
        return shared.mine

    def total(self, tensor: Tensor) -> Tensor:
        """Add an integer tensor across workers, in place; integers make the order irrelevant."""
        if tensor.dtype is not torch.int64:
            raise TypeError(f"only int64 sums are exact, got {tensor.dtype}")
        if shared := self._shared.get(_address(tensor)):
            dist.barrier()
            shared.add_up()
            dist.barrier()
        else:
            dist.all_reduce(tensor)
        return tensor

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Give every worker what worker 0 holds, in place."""
        dist.broadcast(tensor, src=0)
        return tensor

    def gather(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Give every worker the records of all, in worker order; they travel as JSON."""
        data = json.dumps(records).encode()
        length = torch.zeros(self.size, dtype=torch.int64, device=self._device)
        length[self.rank] = len(data)
        lengths = [int(n) for n in self.total(length)]
        row = torch.zeros(max(lengths), dtype=torch.uint8, device=self._device)
        row[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8).to(self._device)
        rows = [torch.empty_like(row) for _ in lengths]
        dist.all_gather(rows, row)
        texts = [bytes(r[:n].cpu().numpy()) for r, n in zip(rows, lengths, strict=True)]
        return [record for text in texts for record in json.loads(text)]

    def close(self) -> None:
        dist.destroy_process_group()


def connect(
    meeting: Meeting,
    device: torch.device,
    note: Callable[[str], None],
    *,
    before_connecting: Callable[[int, int], None] = lambda rank, size: None,
) -> Exchange:
    """Meet the other workers and return the exchange.

    ``before_connecting`` gets this worker's rank and the number of workers. The connections are
    made after that, and may wait for a worker that is gone by then.

    Raises:
        PeerLost: the other machines did not come in time, or have other settings.
    """
    num_local = max(meeting.sites) + 1
    if meeting.num_nodes == 1 and num_local == 1:
        return SingleExchange(len(meeting.sites))
    if meeting.store_path is not None:
        store: dist.Store = dist.FileStore(meeting.store_path, num_local)
        nodes: list[dict[str, Any]] = [{"sites": meeting.sites, "device": device.type}]
        # Workers of one machine need no outside interface, which may not even exist.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    else:
        store = _tcp_store(meeting, note)
        nodes = _join(store, meeting, device, note)
    kinds = sorted({str(node["device"]) for node in nodes})
    if len(kinds) > 1:
        raise PeerLost(f"all machines must use one kind of device, got {' and '.join(kinds)}.")
    offsets = [0, *accumulate(max(node["sites"]) + 1 for node in nodes)]
    sites = [
        offset + local
        for offset, node in zip(offsets, nodes, strict=False)
        for local in node["sites"]
    ]
    rank, size = offsets[meeting.node_rank] + meeting.local_index, offsets[-1]
    before_connecting(rank, size)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=dist.PrefixStore("group", store),
        rank=rank,
        world_size=size,
        timeout=COLLECTIVE_TIMEOUT,
        device_id=device if device.type == "cuda" else None,
    )
    one_machine = meeting.store_path is not None
    return GroupExchange(rank, size, sites, device, store, one_machine=one_machine)


def _address(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.numel()


def _tcp_store(meeting: Meeting, note: Callable[[str], None]) -> dist.TCPStore:
    is_host = meeting.node_rank == 0 and meeting.local_index == 0 and not meeting.agent_store
    deadline = time.monotonic() + join_seconds()
    while True:
        try:
            return dist.TCPStore(
                meeting.host,
                meeting.port,
                is_master=is_host,
                timeout=JOIN_SLICE,
                wait_for_workers=False,
            )
        except (dist.DistError, RuntimeError) as error:
            where = f"{meeting.host}:{meeting.port}"
            if is_host:
                raise PeerLost(
                    f"MASTER_PORT must be free on this machine, but {where} could not be opened "
                    f"({first_line(error)}); choose another port or end what uses it."
                ) from error
            if time.monotonic() > deadline:
                raise PeerLost(
                    f"the first machine did not answer at {where} within {join_seconds():.0f} s; "
                    "check MASTER_ADDR, MASTER_PORT and that node 0 runs."
                ) from error
            note(f"waiting for the first machine at {where}")


def _join(
    store: dist.Store, meeting: Meeting, device: torch.device, note: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Tell the other nodes which sites this one has, and learn theirs, in node order."""
    mine = {"sites": meeting.sites, "device": device.type, "host": socket.gethostname()}
    if meeting.local_index == 0:
        described = json.dumps(mine | {"common_settings": meeting.common_settings})
        store.set(f"node/{meeting.node_rank}", described)
    deadline = time.monotonic() + join_seconds()
    nodes = []
    for number in range(meeting.num_nodes):
        node = _wait_for_node(store, number, meeting, deadline, note)
        try:
            who = f"node {number} ({node['host']})"
            _compare(meeting.common_settings, node["common_settings"], who)
        except PeerLost:
            time.sleep(FAREWELL_SECONDS)
            raise
        nodes.append(node)
    return nodes


def _wait_for_node(
    store: dist.Store,
    number: int,
    meeting: Meeting,
    deadline: float,
    note: Callable[[str], None],
) -> dict[str, Any]:
    while True:
        try:
            store.wait([f"node/{number}"], JOIN_SLICE)
            return dict(json.loads(store.get(f"node/{number}")))
        except dist.DistNetworkError as error:
            raise PeerLost(
                f"the first machine, {meeting.host}:{meeting.port}, was lost before node {number} "
                f"of {meeting.num_nodes} came; its own output says why."
            ) from error
        except (dist.DistError, RuntimeError) as error:
            if time.monotonic() > deadline:
                raise PeerLost(
                    f"node {number} of {meeting.num_nodes} did not come within "
                    f"{join_seconds():.0f} s; start it with RANK={number} or lower WORLD_SIZE."
                ) from error
            note(f"waiting for node {number} of {meeting.num_nodes}")


def _compare(mine: dict[str, Any], theirs: dict[str, Any], who: str) -> None:
    keys = [key for key in sorted(mine.keys() | theirs.keys()) if mine.get(key) != theirs.get(key)]
    if keys:
        listed = ", ".join(f"{key} is {mine.get(key)} here and {theirs.get(key)}" for key in keys)
        raise PeerLost(
            f"all machines must have the same settings, and {listed} on {who}; give all the same."
        )


def join_seconds() -> float:
    """How long machines wait for each other at the start."""
    return float(os.environ.get("SCALING_FL_JOIN_SECONDS", "900"))


def is_lost_connection(error: Exception) -> bool:
    """Say whether a collective failed because another worker is gone."""
    text = str(error).lower()
    signs = ("connection", "closed by peer", "gloo", "nccl", "broken pipe", "socket", "timed out")
    return isinstance(error, RuntimeError | OSError) and any(sign in text for sign in signs)


def explain_lost_connection(error: Exception) -> str:
    """Drop from the library's text its place in the source, and its advice."""
    detail = re.sub(r"^.*\[[^\]]*\.\w+:\d+\] ", "", first_line(error)).partition(". ")[0]
    return f"lost contact with another worker ({detail}); its own output says why."


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0]
