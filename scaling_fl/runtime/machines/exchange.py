"""The exchange between several workers; no other module uses torch.distributed for sums.

One worker needs no process group: ``SingleExchange`` is the identity. The workers of one machine
find each other through a file. The workers of several machines find each other through a TCP store
at ``MASTER_ADDR:MASTER_PORT``, which the first worker (or torchrun's agent) hosts.
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
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from scaling_fl.core.exchange import Exchange, SingleExchange
from scaling_fl.runtime.machines.shared import SharedIntegers, map_shared_integers

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store, TCPStore  # public names have no types

JOIN_SLICE = timedelta(seconds=5)
COLLECTIVE_TIMEOUT = timedelta(
    hours=6
)  # long, because a closed connection already shows that a worker has ended

FAREWELL_SECONDS = 2.0
"""The time that a machine waits before it ends, so that the others can read its settings."""


class PeerLost(RuntimeError):
    """This worker cannot continue, because another worker did not start or has ended."""


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """Where the workers find each other: ``store_path`` on one machine, else ``host:port``.

    ``sites`` lists, for every site of this node, the local worker that runs it.
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
    """The settings that must be equal on all machines, by name."""


class GroupExchange:
    """The exchange of several workers over NCCL (GPU) or gloo (CPU).

    With ``one_machine``, sums on CPUs are in shared memory.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        sites: list[int],
        device: torch.device,
        store: "Store",
        *,
        one_machine: bool = False,
    ) -> None:
        self.rank, self.size, self.sites = rank, size, sites
        # The store of the first worker serves all others, so the exchange keeps it alive.
        self._device, self._store = device, store
        self._uses_shared_memory = one_machine and device.type == "cpu"
        self._shared: dict[tuple[int, int], SharedIntegers] = {}

    def zeros(self, size: int, device: torch.device) -> Tensor:
        """Make an int64 vector of zeros, in shared memory if all workers can map it."""
        shared = (
            map_shared_integers(size, self.rank, self.gather) if self._uses_shared_memory else None
        )
        if shared is None:
            return torch.zeros(size, dtype=torch.int64, device=device)
        self._shared[_address(shared.mine)] = shared
        return shared.mine

    def total(self, tensor: Tensor) -> Tensor:
        """Add the int64 tensors of all workers, in place; a sum of integers has no order."""
        if tensor.dtype is not torch.int64:
            raise TypeError(f"a sum over workers must be int64, got {tensor.dtype}")
        if shared := self._shared.get(_address(tensor)):
            dist.barrier()
            shared.add_up()
            dist.barrier()
        else:
            dist.all_reduce(tensor)
        return tensor

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Overwrite every worker's tensor with the tensor of worker 0."""
        dist.broadcast(tensor, src=0)
        return tensor

    def gather(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Give every worker the records of all workers, in the order of the workers, by JSON."""
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
    """Connect to the other workers and return the exchange.

    ``before_connecting`` is called with the rank of this worker and the number of workers, before
    the connections are made. To make them may take long, if a worker has ended in the meantime.

    Raises:
        PeerLost: another machine did not start in time, or has other settings.
    """
    num_local = max(meeting.sites) + 1
    if meeting.num_nodes == 1 and num_local == 1:
        return SingleExchange(len(meeting.sites))
    if meeting.store_path is not None:
        store: Store = dist.FileStore(meeting.store_path, num_local)  # type: ignore[attr-defined]
        nodes: list[dict[str, Any]] = [{"sites": meeting.sites, "device": device.type}]
        # Workers of one machine use the loopback interface; the machine may have no other one.
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
        store=dist.PrefixStore("group", store),  # type: ignore[attr-defined]
        rank=rank,
        world_size=size,
        timeout=COLLECTIVE_TIMEOUT,
        device_id=device if device.type == "cuda" else None,
    )
    one_machine = meeting.store_path is not None
    return GroupExchange(rank, size, sites, device, store, one_machine=one_machine)


def _address(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.numel()


def _tcp_store(meeting: Meeting, note: Callable[[str], None]) -> "TCPStore":
    is_host = meeting.node_rank == 0 and meeting.local_index == 0 and not meeting.agent_store
    deadline = time.monotonic() + join_seconds()
    while True:
        try:
            return dist.TCPStore(  # type: ignore[attr-defined]
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
                    f"({first_line(error)}); choose another port, or end the process that uses it."
                ) from error
            if time.monotonic() > deadline:
                raise PeerLost(
                    f"the first machine did not answer at {where} within {join_seconds():.0f} s; "
                    "check MASTER_ADDR, MASTER_PORT and that node 0 runs."
                ) from error
            note(f"waiting for the first machine at {where}")


def _join(
    store: "Store", meeting: Meeting, device: torch.device, note: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Give the sites of this node to all nodes, and return the nodes in their order."""
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
    store: "Store",
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
                f"the first machine, {meeting.host}:{meeting.port}, ended before node {number} of "
                f"{meeting.num_nodes} started; read the output of the first machine."
            ) from error
        except (dist.DistError, RuntimeError) as error:
            if time.monotonic() > deadline:
                raise PeerLost(
                    f"node {number} of {meeting.num_nodes} did not start within "
                    f"{join_seconds():.0f} s; start it with RANK={number} or lower WORLD_SIZE."
                ) from error
            note(f"waiting for node {number} of {meeting.num_nodes}")


def _compare(mine: dict[str, Any], theirs: dict[str, Any], who: str) -> None:
    keys = [key for key in sorted(mine.keys() | theirs.keys()) if mine.get(key) != theirs.get(key)]
    if keys:
        listed = ", ".join(f"{key} is {mine.get(key)} here and {theirs.get(key)}" for key in keys)
        raise PeerLost(
            f"all machines must have the same settings, but {listed} on {who}; start all machines "
            "with the same command."
        )


def join_seconds() -> float:
    """Return how long machines wait for each other when they start."""
    return float(os.environ.get("SCALING_FL_JOIN_SECONDS", "900"))


def is_lost_connection(error: Exception) -> bool:
    """Say whether an exchange failed because another worker has ended."""
    text = str(error).lower()
    signs = ("connection", "closed by peer", "gloo", "nccl", "broken pipe", "socket", "timed out")
    return isinstance(error, RuntimeError | OSError) and any(sign in text for sign in signs)


def explain_lost_connection(error: Exception) -> str:
    """Return a sentence with the reason in the library's text, without source lines and advice."""
    detail = re.sub(r"^.*\[[^\]]*\.\w+:\d+\] ", "", first_line(error)).partition(". ")[0]
    return f"lost the connection to another worker ({detail}); read the output of that worker."


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0]
