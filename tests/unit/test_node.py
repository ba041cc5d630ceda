"""What a machine is in a federation, read from plain, node-level and torchrun's variables."""

import pytest

from scaling_fl.node import Node, PlacementError, available_cores, read_node

CLUSTER = {"WORLD_SIZE": "3", "RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
TORCHRUN = CLUSTER | {
    "TORCHELASTIC_RUN_ID": "none",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "WORLD_SIZE": "4",
    "RANK": "3",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}


def test_a_machine_of_its_own_has_all_sites() -> None:
    node = read_node([0, 0, 1, 1], {})
    assert node == Node(rank=0, num_nodes=1, site_ids=[0, 0, 1, 1], device_ids=[0, 1])
    assert node.sites == [0, 0, 1, 1]


def test_workers_are_the_distinct_ids_in_the_order_given() -> None:
    node = read_node([3, 1, 3, 2], {})
    assert node.device_ids == [3, 1, 2]
    assert node.sites == [0, 1, 0, 2]


@pytest.mark.parametrize("environ", [{"WORLD_SIZE": "1"}, {"WORLD_SIZE": "1", "RANK": "0"}])
def test_a_cluster_of_one_is_a_machine_of_its_own(environ: dict[str, str]) -> None:
    assert read_node([0], environ | {"MASTER_ADDR": "10.0.0.1"}) == read_node([0], {})


def test_node_variables_count_machines() -> None:
    node = read_node([0, 0, 1], CLUSTER)
    assert (node.rank, node.num_nodes, node.host, node.port) == (1, 3, "10.0.0.1", 29500)
    assert (node.site_ids, node.device_ids, node.agent_store) == ([0, 0, 1], [0, 1], False)


def test_the_port_has_a_default() -> None:
    environ = {name: value for name, value in CLUSTER.items() if name != "MASTER_PORT"}
    assert read_node([0], environ).port == 23456


def test_torchrun_counts_workers_and_this_process_is_one_of_them() -> None:
    node = read_node([0, 1, 1], TORCHRUN)
    assert (node.rank, node.num_nodes) == (3, 4)
    assert (node.site_ids, node.device_ids, node.sites) == ([1, 1], [1], [0, 0])
    assert node.agent_store


def test_torchrun_without_its_own_store_leaves_the_store_to_the_first_worker() -> None:
    assert not read_node([0, 1], TORCHRUN | {"TORCHELASTIC_USE_AGENT_STORE": "False"}).agent_store


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR must name the first machine .*; set"),
        (CLUSTER | {"RANK": "3"}, "RANK must be at least 0 and below WORLD_SIZE=3, got 3"),
        (CLUSTER | {"RANK": "-1"}, "RANK must be at least 0 and below WORLD_SIZE=3, got -1"),
        ({"RANK": "1"}, "RANK must be at least 0 and below WORLD_SIZE=1, got 1"),
        ({"WORLD_SIZE": "0"}, "below WORLD_SIZE=0"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE must be a whole number, got 'two'"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE must be a whole number, got ''"),
        (CLUSTER | {"MASTER_PORT": "http"}, "MASTER_PORT must be a whole number, got 'http'"),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "3"}, "one process per distinct id in site_ids, got 3 "),
        (TORCHRUN | {"LOCAL_RANK": "x"}, "LOCAL_RANK must be a whole number"),
    ],
)
def test_half_set_and_nonsense_variables_are_named(environ: dict[str, str], message: str) -> None:
    with pytest.raises(PlacementError, match=message) as caught:
        read_node([0, 1], environ)
    assert "\n" not in str(caught.value)


def test_there_is_a_core_at_least() -> None:
    assert available_cores() >= 1
