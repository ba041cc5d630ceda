"""How the workers of several machines find each other and agree on what they run.

The first worker (or torchrun's agent) hosts a TCP store at ``MASTER_ADDR:MASTER_PORT``. To connect
to it, torch prints a trace of C++ frames with every attempt that fails, so plain sockets find out
first whether the store is there.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from scaling_fl.core.waiting import join_seconds
from scaling_fl.runtime.machines.addresses import (
    interface_of,
    interfaces,
    is_loopback,
    is_own,
    is_reachable,
    source_address,
)

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store, TCPStore  # public names have no types

JOIN_SLICE = timedelta(seconds=5)
RETRY_SECONDS = 0.5

FAREWELL_SECONDS = 2.0
"""The time that a machine waits before it ends, so that the others can read its settings."""

OWN_ADDRESS_SECONDS = 15.0
"""The time for MASTER_ADDR to lead to the first machine, as a cluster's service may not at once."""


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

    @property
    def where(self) -> str:
        return f"{self.host}:{self.port}"


def open_tcp_store(meeting: Meeting, waiting: Callable[[str], None]) -> "TCPStore":
    """Host the store of all machines, or connect to it; ``waiting`` is told what is waited for.

    Raises:
        PeerLost: the store cannot be hosted here, or did not answer in time.
    """
    if meeting.node_rank == 0 and meeting.local_index == 0 and not meeting.agent_store:
        listener = _listen(meeting, waiting)
        return _tcp_store(meeting, is_master=True, master_listen_fd=listener.detach())
    deadline = time.monotonic() + join_seconds()
    while True:
        if (obstacle := _try_to_reach(meeting)) is None:
            try:
                return _tcp_store(meeting, is_master=False)
            except (dist.DistError, RuntimeError):
                # A proxy of the network may accept in the name of a machine that is not there yet.
                obstacle = "what answers there is not the first machine of a run"
        if time.monotonic() > deadline:
            raise PeerLost(
                f"the first machine did not answer at {meeting.where} within {join_seconds():.0f} s"
                f" ({obstacle}); check MASTER_ADDR, MASTER_PORT and that node 0 runs."
            )
        waiting(f"waiting for the first machine at {meeting.where}, {join_seconds():.0f} s at most")
        time.sleep(RETRY_SECONDS)


def _tcp_store(meeting: Meeting, **options: Any) -> "TCPStore":
    """Open the store, without the trace of C++ frames that torch prints when it fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        return dist.TCPStore(  # type: ignore[attr-defined]
            meeting.host, meeting.port, timeout=JOIN_SLICE, wait_for_workers=False, **options
        )
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _listen(meeting: Meeting, waiting: Callable[[str], None]) -> socket.socket:
    """Open the port on this machine, and make sure that ``MASTER_ADDR`` leads to it."""
    dual = socket.has_dualstack_ipv6()
    listener = socket.socket(socket.AF_INET6 if dual else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if dual:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("", meeting.port))
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else "there is no such port"
        raise PeerLost(
            f"MASTER_PORT must be free on this machine, but port {meeting.port} could not be "
            f"opened ({reason}); choose another port, or end the process that uses it."
        ) from error
    deadline = time.monotonic() + OWN_ADDRESS_SECONDS
    while (obstacle := _try_to_reach(meeting, listener)) is not None:
        if time.monotonic() > deadline:
            listener.close()
            raise PeerLost(_not_this_machine(meeting, obstacle))
        waiting(f"waiting for MASTER_ADDR={meeting.host} to lead to this machine ({obstacle})")
        time.sleep(RETRY_SECONDS)
    return listener


def _try_to_reach(meeting: Meeting, listener: socket.socket | None = None) -> str | None:
    """Connect to the store's place once; return why that failed, or None.

    With ``listener``, the place must lead to it. An own address does; behind another one may be
    this machine, by a service of its cluster, or a stranger.
    """
    try:
        place, seconds = (meeting.host, meeting.port), JOIN_SLICE.total_seconds()
        with socket.create_connection(place, timeout=seconds):
            if listener and not is_own(meeting.host):
                listener.settimeout(seconds)
                listener.accept()[0].close()
    except TimeoutError:
        return "no answer"
    except OSError as error:
        return str(error.strerror or error).lower()
    finally:
        if listener:
            listener.settimeout(None)
    return None


def _not_this_machine(meeting: Meeting, error: str) -> str:
    owned = is_own(meeting.host)
    if owned:
        return (
            f"MASTER_ADDR must be an address at which this machine reaches itself, got "
            f"{meeting.where} ({error}); check the firewall."
        )
    known = "is not this machine's" if owned is False else "is a name that this machine cannot find"
    own = [address for address in interfaces() if is_reachable(address)]
    return (
        f"MASTER_ADDR must be an address of this machine, because this is node 0, got "
        f"{meeting.host}, which {known}; use one of {', '.join([*own, socket.gethostname()])}, or "
        "make the machine that has this address node 0."
    )


def join(
    store: "Store", meeting: Meeting, device: str, waiting: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Give the sites of this node to all nodes, and return the nodes in their order.

    Raises:
        PeerLost: another machine did not start in time, or has other settings.
    """
    mine = {"sites": meeting.sites, "device": device, "host": socket.gethostname()}
    if meeting.local_index == 0:
        address = source_address(meeting.host, meeting.port)
        described = mine | {"address": address, "common_settings": meeting.common_settings}
        store.set(f"node/{meeting.node_rank}", json.dumps(described))
    deadline = time.monotonic() + join_seconds()
    nodes = []
    for number in range(meeting.num_nodes):
        node = _wait_for_node(store, number, meeting, deadline, waiting)
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
    waiting: Callable[[str], None],
) -> dict[str, Any]:
    while True:
        try:
            store.wait([f"node/{number}"], JOIN_SLICE)
            return dict(json.loads(store.get(f"node/{number}")))
        except dist.DistNetworkError as error:
            raise PeerLost(
                f"the first machine, {meeting.where}, ended before node {number} of "
                f"{meeting.num_nodes} started; read the output of the first machine."
            ) from error
        except (dist.DistError, RuntimeError) as error:
            if time.monotonic() > deadline:
                raise PeerLost(
                    f"node {number} of {meeting.num_nodes} did not start within "
                    f"{join_seconds():.0f} s; start it with RANK={number} or lower WORLD_SIZE."
                ) from error
            waiting(
                f"waiting for node {number} of {meeting.num_nodes}, {join_seconds():.0f} s at most"
            )


def _compare(mine: dict[str, Any], theirs: dict[str, Any], who: str) -> None:
    keys = [key for key in sorted(mine.keys() | theirs.keys()) if mine.get(key) != theirs.get(key)]
    if keys:
        listed = ", ".join(f"{key} is {mine.get(key)} here and {theirs.get(key)}" for key in keys)
        raise PeerLost(
            f"all machines must have the same settings, but {listed} on {who}; start all machines "
            "with the same command."
        )


def choose_interface(meeting: Meeting, nodes: list[dict[str, Any]]) -> None:
    """Have gloo use the network interface that reaches the other machines, unless one is set.

    gloo would use the address of this machine's own name, which leads to the machine itself where
    /etc/hosts maps the name to 127.0.1.1, as on Debian. MASTER_ADDR may be such a name, too, on
    the first machine; then the interface that reaches another machine is used.
    """
    if os.environ.get("GLOO_SOCKET_IFNAME"):
        return
    if meeting.store_path is not None:
        # The machine may have no other interface.
        address: str | None = "127.0.0.1"
    else:
        hosts = [meeting.host, *(str(node["address"]) for node in nodes if node["address"])]
        reached_from = [source_address(host, meeting.port) for host in hosts]
        found = [address for address in reached_from if address]
        outward = [address for address in found if not is_loopback(address)]
        address = next(iter([*outward, *found]), None)
    if address and (name := interface_of(address)):
        os.environ["GLOO_SOCKET_IFNAME"] = name
