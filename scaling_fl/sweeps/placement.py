"""Where the runs of a sweep are computed: slots of a machine, their sites and their threads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_CLUSTER = {"WORLD_SIZE", "RANK", "CLUSTER_SPEC"}
_OF_CLUSTERS = ("PET_", "MASTER_", "LOCAL_", "TORCHELASTIC_", "GROUP_", "ROLE_")
"""The variables, and what others begin with, by which a machine finds those of its federation."""


@dataclass(frozen=True, kw_only=True)
class SlotOrders:
    """What a slot serves, and where its runs are computed."""

    place: str
    sweep: str
    keys: list[str] | None
    """The runs that it takes; None: all that are in the queue."""
    logs: str
    """The folder in which every run has one with its output."""
    sites: list[int]
    num_slots: int
    num_runs: int = 0
    """How many runs the queue will come to have, if some are still to be added.

    What is there of other code or data, from an earlier search, is then left alone.
    """


def deal_sites(sites: Sequence[int], num_slots: int) -> list[list[int]]:
    """Deal sites to slots; with more slots than sites, some share one. No sites: no choice."""
    if not sites:
        return [[] for _ in range(num_slots)]
    return [list(sites[slot::num_slots]) or [sites[slot % len(sites)]] for slot in range(num_slots)]


def on_sites(site_ids: Sequence[int], sites: Sequence[int]) -> list[int]:
    """Place the sites of a run on those of a slot, as many as they are: that changes no digest.

    Sites that shared a device share one.
    """
    devices = list(dict.fromkeys(site_ids))
    return [sites[devices.index(site) % len(sites)] if sites else site for site in site_ids]


def threads_of(num_cores: int, num_workers: int, num_slots: int) -> int:
    """Share the cores of a machine among the workers of all slots."""
    return max(1, num_cores // (num_workers * num_slots))


def alone(environ: Mapping[str, str]) -> dict[str, str]:
    """Copy an environment without what makes a process one of several of a cluster.

    The runs of a sweep are whole on one machine, which may be one of many that share the sweep.
    """
    return {
        name: value
        for name, value in environ.items()
        if name not in _CLUSTER and not name.startswith(_OF_CLUSTERS)
    }
