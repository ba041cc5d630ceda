"""site_ids and the variables of a cluster -> the node of this machine."""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scaling_fl.core.errors import InputError
from scaling_fl.core.waiting import join_seconds, silence_seconds


class PlacementError(InputError):
    """The variables of the cluster contradict each other or site_ids; the text says how."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """The position of this container in the federation, and the workers that it starts."""

    rank: int
    num_nodes: int
    site_ids: list[int]
    device_ids: list[int]
    """For each worker, its local GPU id or CPU slot."""
    host: str = "127.0.0.1"
    port: int = 0
    agent_store: bool = False
    local_rank: int = 0
    """The number of this process among torchrun's processes on this machine."""

    @property
    def sites(self) -> list[int]:
        """For every site of this node, the local worker that runs it."""
        return [self.device_ids.index(site) for site in self.site_ids]


def read_node(site_ids: Sequence[int], environ: Mapping[str, str]) -> Node:
    """Read the node from the environment of torchrun, Kubeflow or Vertex AI.

    ``WORLD_SIZE`` and ``RANK`` count machines, as in the original system. If torchrun started this
    process, they count workers, and this process starts one worker.

    Raises:
        PlacementError: a variable is missing or wrong; the text names the variable.
        UserError: a limit of core.waiting is not a number.
    """
    for limit in (join_seconds, silence_seconds):
        limit(environ)  # a wrong one is told before anything starts
    devices = list(dict.fromkeys(site_ids))
    cluster = _read_cluster(environ)
    if cluster.num_nodes > 1 or len(devices) > 1:
        _check_interfaces(environ)
    if cluster.num_nodes == 1:
        return Node(rank=0, num_nodes=1, site_ids=list(site_ids), device_ids=devices)
    meeting = asdict(cluster)
    if "TORCHELASTIC_RUN_ID" not in environ:
        return Node(site_ids=list(site_ids), device_ids=devices, **meeting)
    local_rank = _integer(environ, "LOCAL_RANK", 0)
    local_size = _integer(environ, "LOCAL_WORLD_SIZE", 1)
    if local_size != len(devices):
        raise PlacementError(
            f"torchrun must start one process per distinct id in site_ids, got {local_size} for "
            f"site_ids={list(site_ids)}; use --nproc-per-node {len(devices)}."
        )
    mine = devices[local_rank]
    return Node(
        site_ids=[site for site in site_ids if site == mine],
        device_ids=[mine],
        agent_store=environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        local_rank=local_rank,
        **meeting,
    )


@dataclass(frozen=True)
class _Cluster:
    """The rank of this node, the number of nodes, and the address of the first one."""

    rank: int
    num_nodes: int
    host: str = ""
    port: int = 0


def _read_cluster(environ: Mapping[str, str]) -> _Cluster:
    is_torchrun = "TORCHELASTIC_RUN_ID" in environ
    if "PET_NNODES" in environ and not is_torchrun:
        return _from_kubeflow(environ)
    if environ.get("CLUSTER_SPEC") and not is_torchrun and "WORLD_SIZE" not in environ:
        return _from_vertex(environ["CLUSTER_SPEC"])
    return _from_variables(environ, "WORLD_SIZE", "RANK")


def _from_kubeflow(environ: Mapping[str, str]) -> _Cluster:
    """Read Kubeflow's variables for torchrun; its ``WORLD_SIZE`` may count processes."""
    size = environ["PET_NNODES"]
    if ":" in size:
        raise PlacementError(
            f"PET_NNODES must be one number, because the machines of a run are fixed, got the range"
            f" {size!r}; leave elasticPolicy out of the job."
        )
    if size != "1" and "PET_NODE_RANK" not in environ:
        raise PlacementError(
            f"PET_NODE_RANK must be set when PET_NNODES is above 1, got nothing with "
            f"PET_NNODES={size}; add a Master to the job."
        )
    plain = {"MASTER_ADDR": "PET_MASTER_ADDR", "MASTER_PORT": "PET_MASTER_PORT"}
    addresses = {name: environ[pet] for name, pet in plain.items() if pet in environ}
    return _from_variables(dict(environ) | addresses, "PET_NNODES", "PET_NODE_RANK")


def _from_vertex(text: str) -> _Cluster:
    """Read Vertex AI's CLUSTER_SPEC: the nodes in the order of the pools; the first one hosts."""
    try:
        spec = json.loads(text)
        pools = sorted((int(name.removeprefix("workerpool")), name) for name in spec["cluster"])
        nodes = [(name, index) for _, name in pools for index in range(len(spec["cluster"][name]))]
        rank = nodes.index((spec["task"]["type"], int(spec["task"]["index"])))
        host, _, port = spec["cluster"][nodes[0][0]][0].rpartition(":")
        return _Cluster(rank, len(nodes), host, int(port))
    except (ValueError, LookupError, TypeError, AttributeError):
        raise PlacementError(
            "CLUSTER_SPEC must be JSON whose cluster lists host:port for workerpool0 onwards and "
            f"whose task is one of them, got {text!r}; unset it outside Vertex AI."
        ) from None


def _from_variables(environ: Mapping[str, str], size_name: str, rank_name: str) -> _Cluster:
    size, rank = _integer(environ, size_name, 1), _integer(environ, rank_name, 0)
    if not 0 <= rank < size:
        raise PlacementError(
            f"{rank_name} must be at least 0 and below {size_name}={size}, got {rank}."
        )
    if size == 1:
        return _Cluster(rank, size)
    if "MASTER_ADDR" not in environ:
        raise PlacementError(
            f"MASTER_ADDR must name the first machine when {size_name} is above 1, got nothing "
            f"with {size_name}={size}; set MASTER_ADDR and MASTER_PORT."
        )
    port = _integer(environ, "MASTER_PORT", 23456)
    return _Cluster(rank, size, environ["MASTER_ADDR"], port)


def _integer(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise PlacementError(f"{name} must be a whole number, got {text!r}.") from None


def _check_interfaces(environ: Mapping[str, str]) -> None:
    """Refuse a network interface for the sums over workers that this machine does not have."""
    given = environ.get("GLOO_SOCKET_IFNAME")
    here = [name for _, name in socket.if_nameindex()]
    if given and not set(given.split(",")) <= set(here):
        raise PlacementError(
            f"GLOO_SOCKET_IFNAME must name a network interface of this machine, which are "
            f"{', '.join(here)}, got {given!r}; correct it, or leave it out to use the interface "
            "that reaches MASTER_ADDR."
        )


def threads_per_worker(node: Node, wanted: int | None, environ: Mapping[str, str]) -> int:
    """Return ``wanted``, or else (cores of this machine) / (workers of this machine)."""
    num_workers = int(environ.get("LOCAL_WORLD_SIZE", len(node.device_ids)))
    return wanted or max(1, available_cores() // num_workers)


def available_cores() -> int:
    """Return min(cores in the affinity of this process, CPU quota of the container)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = cpu_quota(Path("/sys/fs/cgroup"))
    return max(1, min(cores or 1, int(quota))) if quota else cores or 1


def cpu_quota(groups: Path) -> float | None:
    """Read the CPU quota of a container, in cores, from control groups version 2 or 1."""
    for names in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((groups / name).read_text() for name in names).split()
            return int(quota) / int(period) if int(quota) > 0 else None
        except (OSError, ValueError):
            continue  # there is none, or it is "max"
    return None
