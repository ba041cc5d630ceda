"""What a machine is in a federation, read from plain, node-level and torchrun's variables."""

import json
from pathlib import Path

import pytest

from scaling_fl.runtime.machines.node import (
    Node,
    PlacementError,
    available_cores,
    cpu_quota,
    read_node,
)

CLUSTER = {"WORLD_SIZE": "3", "RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
TORCHRUN = CLUSTER | {
    "TORCHELASTIC_RUN_ID": "none",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "WORLD_SIZE": "4",
    "RANK": "3",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}
KUBEFLOW = {
    "PET_NNODES": "2",
    "PET_NODE_RANK": "1",
    "PET_MASTER_ADDR": "job-master-0",
    "PET_MASTER_PORT": "23456",
    "PET_NPROC_PER_NODE": "4",
    # The training operator multiplies the machines by the processes that torchrun would start.
    "WORLD_SIZE": "8",
    "RANK": "1",
    "MASTER_ADDR": "job-master-0",
    "MASTER_PORT": "23456",
}
VERTEX = {
    "cluster": {
        "workerpool0": ["training-workerpool0-ab-0:2222"],
        "workerpool1": ["training-workerpool1-ab-0:2222", "training-workerpool1-ab-1:2222"],
    },
    "environment": "cloud",
    "task": {"type": "workerpool1", "index": 1},
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
        (
            {"PET_NNODES": "1:4"},
            "PET_NNODES must be one number, .* got the range '1:4'; leave elasticPolicy",
        ),
        (
            {"PET_NNODES": "two", "PET_NODE_RANK": "0"},
            "PET_NNODES must be a whole number, got 'two'",
        ),
        ({"PET_NNODES": "2"}, "PET_NODE_RANK must be set when PET_NNODES is above 1"),
        ({"PET_NNODES": "2", "PET_NODE_RANK": "2"}, "PET_NODE_RANK must be .* below PET_NNODES=2"),
        ({"PET_NNODES": "2", "PET_NODE_RANK": "0"}, "MASTER_ADDR must .* PET_NNODES is above 1"),
    ],
)
def test_half_set_and_nonsense_variables_are_named(environ: dict[str, str], message: str) -> None:
    with pytest.raises(PlacementError, match=message) as caught:
        read_node([0, 1], environ)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("environ", [CLUSTER, {}])
def test_a_network_interface_that_is_not_there_is_named(environ: dict[str, str]) -> None:
    expected = (
        "GLOO_SOCKET_IFNAME must name a network interface of this machine, .*lo.* got 'eth99'"
    )
    with pytest.raises(PlacementError, match=expected):
        read_node([0, 1], environ | {"GLOO_SOCKET_IFNAME": "eth99"})
    for good in ("lo", ""):
        assert read_node([0, 1], environ | {"GLOO_SOCKET_IFNAME": good}).num_nodes
    assert read_node([0], {"GLOO_SOCKET_IFNAME": "eth99"}).num_nodes == 1  # nobody to talk to


def test_kubeflow_says_how_many_machines_there_are() -> None:
    node = read_node([0, 1], KUBEFLOW)
    assert (node.rank, node.num_nodes, node.host, node.port) == (1, 2, "job-master-0", 23456)
    assert node.device_ids == [0, 1]


def test_kubeflow_without_addresses_of_its_own_leaves_the_plain_ones() -> None:
    plain = {name: KUBEFLOW[name] for name in KUBEFLOW if not name.startswith("PET_MASTER")}
    assert read_node([0], plain) == read_node([0], KUBEFLOW)
    assert read_node([0], KUBEFLOW | {"PET_MASTER_ADDR": "other"}).host == "other"


def test_kubeflow_with_one_machine_is_a_machine_of_its_own() -> None:
    assert read_node([0], {"PET_NNODES": "1"}) == read_node([0], {})


def test_torchrun_inside_kubeflow_wins() -> None:
    assert read_node([0, 1, 1], KUBEFLOW | TORCHRUN) == read_node([0, 1, 1], TORCHRUN)


@pytest.mark.parametrize(
    ("pool", "index", "rank"), [("workerpool0", 0, 0), ("workerpool1", 0, 1), ("workerpool1", 1, 2)]
)
def test_vertex_counts_through_its_pools(pool: str, index: int, rank: int) -> None:
    spec = VERTEX | {"task": {"type": pool, "index": index, "trial": ""}}
    node = read_node([0, 1], {"CLUSTER_SPEC": json.dumps(spec)})
    assert (node.rank, node.num_nodes) == (rank, 3)
    assert (node.host, node.port) == ("training-workerpool0-ab-0", 2222)
    assert (node.site_ids, node.device_ids) == ([0, 1], [0, 1])


def test_vertex_pools_are_ordered_by_their_number() -> None:
    pools = [f"workerpool{number}" for number in (10, 2, 0)]
    cluster = {name: [f"{name}-0:2222"] for name in pools}
    task = {"type": "workerpool10", "index": 0}
    node = read_node([0], {"CLUSTER_SPEC": json.dumps({"cluster": cluster, "task": task})})
    assert (node.rank, node.host) == (2, "workerpool0-0")


def test_vertex_with_one_replica_is_a_machine_of_its_own() -> None:
    cluster = {"workerpool0": ["training-workerpool0-ab-0:2222"]}
    spec = {"cluster": cluster, "task": {"type": "workerpool0", "index": 0}}
    assert read_node([0], {"CLUSTER_SPEC": json.dumps(spec)}) == read_node([0], {})


@pytest.mark.parametrize("environ", [CLUSTER, KUBEFLOW, TORCHRUN])
def test_other_variables_win_over_a_cluster_spec(environ: dict[str, str]) -> None:
    node = read_node([0, 1], environ | {"CLUSTER_SPEC": json.dumps(VERTEX)})
    assert node == read_node([0, 1], environ)


def test_an_empty_cluster_spec_is_none() -> None:
    assert read_node([0], {"CLUSTER_SPEC": ""}) == read_node([0], {})


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "7",
        "{}",
        json.dumps({"cluster": VERTEX["cluster"]}),
        json.dumps(VERTEX | {"task": {"type": "workerpool3", "index": 0}}),
        json.dumps(VERTEX | {"cluster": {"chief": ["a:1"]}}),
        json.dumps(
            {"cluster": {"workerpool0": ["no-port"]}, "task": {"type": "workerpool0", "index": 0}}
        ),
    ],
)
def test_a_malformed_cluster_spec_is_one_sentence(text: str) -> None:
    with pytest.raises(PlacementError, match="CLUSTER_SPEC must be JSON whose cluster") as caught:
        read_node([0], {"CLUSTER_SPEC": text})
    assert "\n" not in str(caught.value)


def test_there_is_a_core_at_least() -> None:
    assert available_cores() >= 1


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_quota_of_cpu_time_is_read_from_either_version_of_control_groups(
    tmp_path: Path, files: dict[str, str], cores: float | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpu_quota(tmp_path) == cores
