"""The addresses of this machine, and its network interface that reaches another machine."""

import fcntl
import ipaddress
import socket
import struct
import sys
from array import array
from contextlib import suppress
from pathlib import Path

_SIOCGIFCONF = 0x8912
_MAX_ADDRESSES = 256
_IPV6_INTERFACES = Path("/proc/net/if_inet6")


def source_address(host: str, port: int) -> str | None:
    """Return the address of this machine from which packets to ``host`` leave.

    Nothing is sent: to connect a UDP socket only asks the kernel for the route. Returns None if the
    name is unknown or no route leads there.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except OSError:
        return None
    for family, kind, protocol, _, where in found:
        with suppress(OSError), socket.socket(family, kind, protocol) as probe:
            probe.connect(where)
            return str(probe.getsockname()[0])
    return None


def is_loopback(address: str) -> bool:
    """Say whether an address leads from a machine to itself, as 127.0.0.1 does."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def is_reachable(address: str) -> bool:
    """Say whether other machines may use an address: those for one machine or one link are not."""
    return not (is_loopback(address) or ipaddress.ip_address(address).is_link_local)


def is_own(host: str) -> bool | None:
    """Say whether a name or address is this machine's; None if the name is unknown."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except OSError:
        return None
    for family, kind, protocol, _, where in found:
        with suppress(OSError), socket.socket(family, kind, protocol) as probe:
            probe.bind(where)
            return True
    return False


def interface_of(address: str) -> str | None:
    """Return the name of the network interface that has an address; None if it is not found."""
    return interfaces().get(address.partition("%")[0])


def interfaces() -> dict[str, str]:
    """Map the addresses of this machine to the names of their interfaces, on Linux."""
    return {**_ipv4_interfaces(), **_ipv6_interfaces()}


def _ipv4_interfaces() -> dict[str, str]:
    # struct ifconf {int length; struct ifreq *first}; an ifreq has 40 bytes: a name of 16, then a
    # family and a port of 2 each, then the address.
    if sys.platform != "linux":
        return {}
    size = 40
    room = array("B", bytes(size * _MAX_ADDRESSES))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("iP", len(room), room.buffer_info()[0])
        length = struct.unpack("iP", fcntl.ioctl(probe, _SIOCGIFCONF, request))[0]
    entries = [room[at : at + size].tobytes() for at in range(0, length, size)]
    return {socket.inet_ntoa(e[20:24]): e[:16].split(b"\0")[0].decode() for e in entries}


def _ipv6_interfaces() -> dict[str, str]:
    try:
        lines = [line.split() for line in _IPV6_INTERFACES.read_text().splitlines()]
    except OSError:
        return {}  # no IPv6 here
    return {str(ipaddress.IPv6Address(bytes.fromhex(line[0]))): line[-1] for line in lines}
