"""site_ids and cluster variables -> what this machine is in the federation."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class PlacementError(ValueError):
    """The environment's cluster variables and site_ids do not fit; the text says how."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """What this container is in the federation, and which workers it starts."""

    rank: int
    num_nodes: int
    site_ids: list[int]
    device_ids: list[int]
    """One worker per entry: its local GPU id, or CPU slot."""
    host: str = "127.0.0.1"
    port: int = 0
    agent_store: bool = False
    local_rank: int = 0
    """Which of torchrun's processes on this machine this is; the first one speaks for all."""

    @property
    def sites(self) -> list[int]:
        """For every site of this node, the local worker that runs it."""
        return [self.device_ids.index(site) for site in self.site_ids]


def read_node(site_ids: Sequence[int], environ: Mapping[str, str]) -> Node:
    """Read what this container is from the environment of torchrun, Kubeflow or Vertex AI.

    ``WORLD_SIZE`` and ``RANK`` count machines, as in the original system, unless torchrun started
    this process: then they count workers, and this process starts the one that is its own.

    Raises:
        PlacementError: naming the variable.
    """
    devices = list(dict.fromkeys(site_ids))
    size = _integer(environ, "WORLD_SIZE", 1)
    rank = _integer(environ, "RANK", 0)
    if not 0 <= rank < size:
        raise PlacementError(f"RANK must be at least 0 and below WORLD_SIZE={size}, got {rank}.")
    if size == 1:
        return Node(rank=0, num_nodes=1, site_ids=list(site_ids), device_ids=devices)
    if "MASTER_ADDR" not in environ:
        raise PlacementError(
            f"MASTER_ADDR must name the first machine when WORLD_SIZE is above 1, got nothing with "
            f"WORLD_SIZE={size}; set MASTER_ADDR and MASTER_PORT."
        )
    meeting: dict[str, Any] = {
        "rank": rank,
        "num_nodes": size,
        "host": environ["MASTER_ADDR"],
        "port": _integer(environ, "MASTER_PORT", 23456),
    }
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


def _integer(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise PlacementError(f"{name} must be a whole number, got {text!r}.") from None


def silence_seconds() -> float:
    """How long a worker of several machines may be silent before it counts as lost."""
    return float(os.environ.get("SCALING_FL_SILENCE_SECONDS", "20"))


def available_cores() -> int:
    """Cores this process may use: its affinity, capped by the container's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores or 1, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores or 1
