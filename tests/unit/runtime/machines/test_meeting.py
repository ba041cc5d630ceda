"""Machines that look for each other: what is waited for, in which order, and what is wrong."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from scaling_fl.runtime.machines import meeting as module
from scaling_fl.runtime.machines.addresses import interfaces, is_loopback, is_reachable
from scaling_fl.runtime.machines.meeting import (
    Meeting,
    PeerLost,
    choose_interface,
    join,
    open_tcp_store,
)
from tests.servers import free_port


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(module, "OWN_ADDRESS_SECONDS", 0.0)
    monkeypatch.setenv("SCALING_FL_JOIN_SECONDS", "20")


@pytest.fixture
def no_interface(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    yield
    os.environ.pop("GLOO_SOCKET_IFNAME", None)


def machine(rank: int, port: int, **changes: Any) -> Meeting:
    place = {"node_rank": rank, "num_nodes": 2, "local_index": 0, "sites": [0]}
    return Meeting(**(place | {"host": "127.0.0.1", "port": port} | changes))


def test_a_first_machine_that_starts_late_is_waited_for_in_one_line(
    capfd: pytest.CaptureFixture[str],
) -> None:
    port, told, hosted = free_port(), [], []

    def start_late() -> None:
        time.sleep(0.6)
        hosted.append(open_tcp_store(machine(0, port), told.append))

    thread = threading.Thread(target=start_late)
    thread.start()
    store = open_tcp_store(machine(1, port), told.append)
    thread.join()
    store.set("key", "value")
    assert hosted[0].get("key") == b"value"
    assert set(told) == {f"waiting for the first machine at 127.0.0.1:{port}, 20 s at most"}
    assert capfd.readouterr().err == ""  # torch would show its stack


def test_machines_tell_each_other_their_sites_and_addresses(no_interface: None) -> None:
    port = free_port()
    first = open_tcp_store(machine(0, port), print)
    second = open_tcp_store(machine(1, port, sites=[0, 0]), print)
    found: list[Any] = []
    thread = threading.Thread(
        target=lambda: found.append(join(first, machine(0, port), "cpu", print))
    )
    thread.start()
    nodes = join(second, machine(1, port, sites=[0, 0]), "cpu", print)
    thread.join()
    assert found == [nodes]
    assert [node["sites"] for node in nodes] == [[0], [0, 0]]
    assert all(is_loopback(node["address"]) for node in nodes)
    choose_interface(machine(0, port), nodes)
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"


def test_a_first_machine_that_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALING_FL_JOIN_SECONDS", "0")
    port = free_port()
    expected = rf"did not answer at 127.0.0.1:{port} within 0 s \(connection refused\); check"
    with pytest.raises(PeerLost, match=expected):
        open_tcp_store(machine(1, port), print)


def test_a_proxy_in_the_name_of_the_first_machine_is_not_taken_for_it(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It accepts and hangs up, until the machine is there."""
    port, hosted, told = free_port(), [], []
    proxy = socket.create_server(("127.0.0.1", port))

    def hang_up_once() -> None:
        for _ in range(2):  # what tries the port, and the store's client
            proxy.accept()[0].close()
        proxy.close()
        time.sleep(0.3)
        hosted.append(open_tcp_store(machine(0, port), print))

    monkeypatch.setattr(module, "JOIN_SLICE", module.JOIN_SLICE / 5)
    thread = threading.Thread(target=hang_up_once)
    thread.start()
    open_tcp_store(machine(1, port), told.append).set("key", "value")
    thread.join()
    assert hosted[0].get("key") == b"value"
    assert all("waiting for the first machine" in text for text in told)
    assert capfd.readouterr().err == ""


def test_a_stranger_that_answers_is_not_the_first_machine_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The port of another address may be open, too, as where a firewall answers for everybody."""
    monkeypatch.setattr(module, "is_own", lambda host: False)
    monkeypatch.setattr(module, "JOIN_SLICE", module.JOIN_SLICE / 50)
    connect = socket.create_connection
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        place = stranger.getsockname()
        monkeypatch.setattr(socket, "create_connection", lambda *_, **o: connect(place, **o))
        with pytest.raises(PeerLost, match="which is not this machine's; use one of"):
            open_tcp_store(machine(0, free_port(), host="203.0.113.7"), print)


def test_a_service_that_leads_back_here_is_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_own", lambda host: False)
    store = open_tcp_store(machine(0, free_port()), print)
    store.set("key", "value")
    assert store.get("key") == b"value"


def test_a_wait_ends_when_the_one_who_is_told_says_so() -> None:
    def stop(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_tcp_store(machine(1, free_port()), stop)


def test_a_port_that_is_taken_is_told_as_such() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        expected = rf"MASTER_PORT must be free on this machine, but port {port} could not be opened"
        with pytest.raises(PeerLost, match=expected):
            open_tcp_store(machine(0, port), print)


def test_a_port_that_does_not_exist_is_told_as_such() -> None:
    with pytest.raises(PeerLost, match="port 70000 could not be opened"):
        open_tcp_store(machine(0, 70000), print)


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("203.0.113.7", "got 203.0.113.7, which is not this machine's"),
        ("no-such.invalid", "got no-such.invalid, which is a name that this machine cannot find"),
    ],
)
def test_an_address_that_is_not_this_machines_is_not_told_as_a_busy_port(
    host: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "JOIN_SLICE", module.JOIN_SLICE / 50)
    port = free_port()
    with pytest.raises(PeerLost, match="because this is node 0, ") as caught:
        open_tcp_store(machine(0, port, host=host), print)
    text = str(caught.value)
    assert reason in text
    assert "MASTER_PORT" not in text
    assert all(a in text for a in interfaces() if is_reachable(a))
    with socket.socket() as again:  # the port was given back
        again.bind(("127.0.0.1", port))


def nodes_at(*addresses: str | None) -> list[dict[str, Any]]:
    return [{"address": address} for address in addresses]


def test_one_machine_uses_its_loopback(no_interface: None) -> None:
    choose_interface(machine(0, 1, num_nodes=1, store_path="store"), [])
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"


def test_the_interface_that_reaches_another_machine_wins_over_the_loopback(
    no_interface: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first machine's own name, which is MASTER_ADDR, leads to its loopback on Debian."""
    routes = {"first": "127.0.1.1", "127.0.1.1": "127.0.1.1", "10.9.0.2": "10.9.0.1"}
    monkeypatch.setattr(module, "source_address", lambda host, port: routes[host])
    monkeypatch.setattr(module, "interface_of", {"127.0.1.1": "lo", "10.9.0.1": "eth7"}.get)
    choose_interface(machine(0, 1, host="first"), nodes_at("127.0.1.1", "10.9.0.2", None))
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7"


def test_an_interface_that_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "mine")
    choose_interface(machine(0, 1), nodes_at("127.0.0.1"))
    assert os.environ["GLOO_SOCKET_IFNAME"] == "mine"
