"""The addresses of this machine and what they are good for; no packet leaves the machine."""

import socket

import pytest

from scaling_fl.runtime.machines.addresses import (
    interface_of,
    interfaces,
    is_loopback,
    is_own,
    source_address,
)


def test_every_address_is_of_an_interface_that_the_system_lists() -> None:
    names = {name for _, name in socket.if_nameindex()}
    found = interfaces()
    assert set(found.values()) <= names
    assert interface_of("127.0.0.1") == found["127.0.0.1"] == "lo"
    assert interface_of("203.0.113.7") is None
    assert all(is_own(address) for address in found if not address.startswith("fe80"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.1.1", "localhost"])
def test_this_machine_reaches_itself_by_the_loopback(host: str) -> None:
    source = source_address(host, 29500)
    assert source is not None
    assert is_loopback(source)
    assert is_own(host)


def test_an_address_is_reached_from_itself() -> None:
    for address in interfaces():
        if not is_loopback(address) and not address.startswith("fe80"):
            assert source_address(address, 29500) == address


def test_a_name_that_nobody_has_is_neither_own_nor_foreign() -> None:
    assert is_own("no-such-machine.invalid") is None
    assert source_address("no-such-machine.invalid", 1) is None
    assert is_own("203.0.113.7") is False


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.1.1", True), ("::1", True), ("10.0.0.1", False), ("fe80::1%eth0", False)],
)
def test_a_loopback_address_is_known(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected
