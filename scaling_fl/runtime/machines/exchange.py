"""The exchange between several workers; no other module uses torch.distributed for sums.

One worker needs no process group: ``SingleExchange`` is the identity. The workers of one machine
find each other through a file. The workers of several machines find each other through a TCP store
at ``MASTER_ADDR:MASTER_PORT``, which the first worker (or torchrun's agent) hosts.
"""

import json
import os
import re
from collections.abc import Callable
from datetime import timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from scaling_fl.core.exchange import Exchange, SingleExchange
from scaling_fl.runtime.machines.meeting import (
    Meeting,
    PeerLost,
    choose_interface,
    join,
    open_tcp_store,
)
from scaling_fl.runtime.machines.shared import SharedIntegers, map_shared_integers

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store  # public names have no types

COLLECTIVE_TIMEOUT = timedelta(
    hours=6
)  # long, because a closed connection already shows that a worker has ended


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
    waiting: Callable[[str], None],
    *,
    before_connecting: Callable[[int, int], None] = lambda rank, size: None,
) -> Exchange:
    """Connect to the other workers and return the exchange.

    ``waiting`` is told what is waited for, again and again; it may raise, which ends the wait.
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
    else:
        store = open_tcp_store(meeting, waiting)
        nodes = join(store, meeting, device.type, waiting)
    choose_interface(meeting, nodes)
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
    _init_group(dist.PrefixStore("group", store), rank, size, device)  # type: ignore[attr-defined]
    one_machine = meeting.store_path is not None
    return GroupExchange(rank, size, sites, device, store, one_machine=one_machine)


def _init_group(store: "Store", rank: int, size: int, device: torch.device) -> None:
    is_gpu = device.type == "cuda"
    dist.init_process_group(
        "nccl" if is_gpu else "gloo",
        store=store,
        rank=rank,
        world_size=size,
        timeout=COLLECTIVE_TIMEOUT,
        device_id=device if is_gpu else None,
    )


def _address(tensor: Tensor) -> tuple[int, int]:
    return tensor.data_ptr(), tensor.numel()


def is_lost_connection(error: Exception) -> bool:
    """Say whether an exchange failed because another worker has ended."""
    text = str(error).lower()
    signs = ("connection", "closed by peer", "gloo", "nccl", "broken pipe", "socket", "timed out")
    return isinstance(error, RuntimeError | OSError) and any(sign in text for sign in signs)


def explain_lost_connection(error: Exception) -> str:
    """Return a sentence with the reason in the library's text, without source lines and advice."""
    detail = re.sub(r"^.*\[[^\]]*\.\w+:\d+\] ", "", first_line(error)).partition(". ")[0]
    remedy = "read the output of that worker"
    if "connecting" in detail and (interface := os.environ.get("GLOO_SOCKET_IFNAME")):
        remedy += (
            f", and check that the network interface GLOO_SOCKET_IFNAME={interface} reaches the "
            "other machines"
        )
    return f"lost the connection to another worker ({detail}); {remedy}."


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0]
