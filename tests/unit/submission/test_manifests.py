"""What is submitted is what the platform accepts, and what it starts is what was asked for."""

from dataclasses import replace
from typing import Any

import pytest
import yaml
from sacred.arg_parser import get_config_updates

from scaling_fl.config import NAMED, read_config
from scaling_fl.runtime.machines.launch import GRACE_SECONDS
from scaling_fl.runtime.machines.node import read_node
from scaling_fl.submission import manifests
from scaling_fl.submission.request import Request
from tests.unit.submission.platforms import ROOT, containers

PLATFORMS = tuple(manifests.FILES)
SEVERAL = tuple(platform for platform in PLATFORMS if platform != "kubernetes")
COMMAND = (
    "scripts/train_federated.py",
    "with",
    "demo",
    "site_ids=[0,0,3]",
    "job_name=my_job",
    "checkpoints_dir=gs://bucket/my_job",
    "learning_rate=0.1",
)


def request(platform: str, **changes: Any) -> Request:
    given: dict[str, Any] = {
        "nodes": 1 if platform == "kubernetes" else 3,
        "gpus": 4,
        "image": "images/fl:1",
    }
    given |= {"name": "my-job", "arguments": COMMAND}
    return Request(platform=platform, **(given | changes))


def filled(platform: str, **changes: Any) -> list[manifests.Document]:
    """Fill a manifest, write it, and read what was written."""
    documents = manifests.read(platform, ROOT)
    manifests.fill(documents, request(platform, **changes))
    return list(yaml.safe_load_all(manifests.write(documents)))


def settings_of(arguments: list[str]) -> dict[str, Any]:
    """Read a command's settings with Sacred's own parser."""
    updates, named = get_config_updates(arguments[arguments.index("with") + 1 :])
    merged: dict[str, Any] = {}
    for name in named:
        merged |= NAMED[name]
    return merged | updates


def test_workers_of_a_queue_are_indexed_pods_of_one_job() -> None:
    serve = ("scripts/run_experiments.py", "--queue", "grid", "--sweeps-dir", "mongo:")
    [job] = filled("kubernetes", arguments=serve, nodes=3)
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert "completionMode" not in filled("kubernetes")[0]["spec"]


@pytest.mark.parametrize("platform", [name for name in PLATFORMS if name != "vertex"])
def test_a_queue_of_kueue_is_a_label_of_the_job(platform: str) -> None:
    labels = [d["metadata"].get("labels", {}) for d in filled(platform, kueue="team-a")]
    assert [found.get(manifests.KUEUE) for found in labels][-1] == "team-a"
    assert all(manifests.KUEUE not in found for found in labels[:-1])


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_manifest_as_it_stands_runs(platform: str) -> None:
    documents = manifests.read(platform, ROOT)
    for arguments, environ in containers(documents, {}):
        settings = settings_of(arguments)
        node = read_node(settings["site_ids"], environ)
        config = read_config(settings, num_nodes=node.num_nodes)
        assert list(config.site_ids) == node.site_ids


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("gpus", [0, 1, 8])
@pytest.mark.parametrize("nodes", [1, 2, 5])
def test_a_filled_manifest_starts_every_machine(platform: str, gpus: int, nodes: int) -> None:
    if platform == "kubernetes" and nodes > 1:
        return
    machine = {"machine_type": "g2-standard-96", "accelerator_type": "NVIDIA_L4" if gpus else None}
    documents = filled(platform, gpus=gpus, nodes=nodes, service_account="me", **machine)
    assert len(containers(documents, {})) == nodes
    text = yaml.safe_dump(documents)
    assert ("nvidia.com/gpu" in text or "acceleratorCount" in text) == (gpus > 0)


@pytest.mark.parametrize(
    ("platform", "host", "port"),
    [
        ("kubeflow-pytorchjob", "my-job-master-0", 23456),
        ("kubeflow-trainjob", "my-job-node-0-0.my-job", 29500),
        ("vertex", "training-workerpool0-ab-0", 2222),
    ],
)
@pytest.mark.parametrize("nodes", [2, 3])
def test_every_machine_reads_its_place_from_what_the_platform_sets(
    platform: str, host: str, port: int, nodes: int
) -> None:
    started = containers(filled(platform, nodes=nodes), {})
    for rank, (arguments, environ) in enumerate(started):
        assert tuple(arguments) == COMMAND
        settings = settings_of(arguments)
        node = read_node(settings["site_ids"], environ)
        assert (node.rank, node.num_nodes, node.host, node.port) == (rank, nodes, host, port)
        assert (node.site_ids, node.device_ids) == ([0, 0, 3], [0, 3])
        config = read_config(settings, num_nodes=node.num_nodes)
        assert (config.job_name, config.checkpoints_dir) == ("my_job", "gs://bucket/my_job")


@pytest.mark.parametrize("platform", PLATFORMS)
def test_one_machine_is_a_machine_of_its_own(platform: str) -> None:
    [(_, environ)] = containers(filled(platform, nodes=1), {})
    assert read_node([0, 1], environ) == read_node([0, 1], {})


def test_a_world_size_that_counts_processes_changes_nothing() -> None:
    documents = filled("kubeflow-pytorchjob", nodes=2)
    documents[0]["spec"]["nprocPerNode"] = "4"
    environs = [environ for _, environ in containers(documents, {})]
    assert [environ["WORLD_SIZE"] for environ in environs] == ["8", "8"]
    assert [read_node([0], environ).num_nodes for environ in environs] == [2, 2]
    assert [read_node([0], environ).rank for environ in environs] == [0, 1]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_variables_and_secrets_reach_the_containers(platform: str) -> None:
    is_vertex = platform == "vertex"
    documents = filled(
        platform,
        environ=["A=1", "EMPTY=", "EQUALS=a=b", "DOLLARS=$(A) $$ $A $"],
        secrets=["B_TOKEN=projects/p/secrets/b/versions/3", "SACRED_MONGO_URI=mongo"]
        if is_vertex
        else ["B_TOKEN=keys/b.token", "SACRED_MONGO_URI=mongo"],
        project="mine" if is_vertex else None,
    )
    values = {"keys/b.token": "sesame", "mongo/SACRED_MONGO_URI": "mongodb://u:p@h/d"}
    for _, environ in containers(documents, values):
        given = {"A": "1", "EMPTY": "", "EQUALS": "a=b", "DOLLARS": "$(A) $$ $A $"}
        assert given.items() <= environ.items()
        found = environ["B_TOKEN"], environ["SACRED_MONGO_URI"]
        assert found == (
            (
                "sm://projects/p/secrets/b/versions/3",
                "sm://projects/mine/secrets/mongo/versions/latest",
            )
            if is_vertex
            else ("sesame", "mongodb://u:p@h/d")
        )
    text = manifests.write(documents)
    assert "sesame" not in text
    assert "mongodb://" not in text


@pytest.mark.parametrize("platform", PLATFORMS)
def test_arguments_arrive_as_they_were_given(platform: str) -> None:
    odd = ["scripts/x.py", "a b", "'", '"', "$(HOME)", "$$", "#", "- x", "a: b", "1", "", "é\n"]
    documents = manifests.read(platform, ROOT)
    manifests.fill(documents, replace(request(platform, environ=["HOME=/root"]), arguments=odd))
    documents = list(yaml.safe_load_all(manifests.write(documents)))
    assert all(arguments == odd for arguments, _ in containers(documents, {}))


@pytest.mark.parametrize("platform", PLATFORMS[:3])
def test_what_is_not_filled_in_is_kept(platform: str) -> None:
    documents = manifests.read(platform, ROOT)
    for pod in manifests.pods(documents, platform):
        pod["nodeSelector"] = {"pool": "gpu"}
        pod["containers"][0].setdefault("env", []).append({"name": "MINE", "value": "kept"})
    manifests.fill(documents, request(platform, namespace="research", service_account="robot"))
    for pod in manifests.pods(documents, platform):
        assert pod["nodeSelector"] == {"pool": "gpu"}
        assert {"name": "MINE", "value": "kept"} in pod["containers"][0]["env"]
        assert pod["serviceAccountName"] == "robot"
    assert {document["metadata"]["namespace"] for document in documents} == {"research"}
    assert {document["metadata"]["name"] for document in documents} == {"my-job"}


def test_vertex_gets_its_account_its_machines_and_spot() -> None:
    machine = {"machine_type": "a2-highgpu-2g", "accelerator_type": "NVIDIA_TESLA_A100"}
    [spec] = filled("vertex", gpus=2, spot=True, service_account="a@b.iam", **machine)
    assert spec["serviceAccount"] == "a@b.iam"
    assert spec["scheduling"]["strategy"] == "SPOT"
    assert [pool["replicaCount"] for pool in spec["workerPoolSpecs"]] == [1, 2]
    for pool in spec["workerPoolSpecs"]:
        assert pool["machineSpec"] == {
            "machineType": "a2-highgpu-2g",
            "acceleratorType": "NVIDIA_TESLA_A100",
            "acceleratorCount": 2,
        }


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_container_has_time_to_end_in_order_and_is_started_again(platform: str) -> None:
    documents = manifests.read(platform, ROOT)
    spec = documents[0].get("spec", {})
    if platform == "vertex":  # which gives no choice of the 30 seconds
        assert documents[0]["scheduling"]["restartJobOnWorkerRestart"] is True
        return
    pods = list(manifests.pods(documents, platform))
    assert [pod["terminationGracePeriodSeconds"] for pod in pods] == [30] * len(pods)
    assert GRACE_SECONDS + 5 <= 30
    if platform == "kubeflow-pytorchjob":
        replicas = spec["pytorchReplicaSpecs"].values()
        assert {replica["restartPolicy"] for replica in replicas} == {"OnFailure"}
        assert spec["runPolicy"]["backoffLimit"] > 0
    elif platform == "kubeflow-trainjob":
        assert spec["template"]["spec"]["failurePolicy"]["maxRestarts"] > 0
    else:
        assert spec["backoffLimit"] > 0


@pytest.mark.parametrize("platform", ["kubeflow-trainjob", "kubernetes"])
def test_a_configuration_that_cannot_be_run_is_not_tried_again(platform: str) -> None:
    spec = manifests.read(platform, ROOT)[0]["spec"]
    if platform == "kubeflow-trainjob":
        rules = spec["template"]["spec"]["failurePolicy"]["rules"]
        assert rules[0]["action"] == "FailJobSet"
        assert rules[0]["onJobFailureReasons"] == ["PodFailurePolicy"]
        spec = spec["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]
    [rule] = [r for r in spec["podFailurePolicy"]["rules"] if "onExitCodes" in r]
    container = spec["template"]["spec"]["containers"][0]["name"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [2])
    assert rule["onExitCodes"]["containerName"] == container


def test_only_volumes_that_outlive_the_pod_count_as_lasting() -> None:
    for platform in PLATFORMS:
        documents = manifests.read(platform, ROOT)
        assert manifests.lasting_mounts(documents, platform) == []
    documents = manifests.read("kubernetes", ROOT)
    pod = documents[0]["spec"]["template"]["spec"]
    pod["volumes"].append({"name": "disk", "persistentVolumeClaim": {"claimName": "c"}})
    pod["containers"][0]["volumeMounts"].append({"name": "disk", "mountPath": "/checkpoints"})
    assert manifests.lasting_mounts(documents, "kubernetes") == ["/checkpoints"]


def test_vertex_machines_must_have_the_gpus() -> None:
    documents = manifests.read("vertex", ROOT)

    def found(**changes: Any) -> list[str]:
        asked = request("vertex", **changes)
        return [str(problem) for problem in manifests.machine_problems(documents, asked)]

    assert found(gpus=4) == []
    assert found(gpus=8, machine_type="g2-standard-96", accelerator_type="NVIDIA_L4") == []
    assert found(gpus=0, machine_type="n1-standard-8") == []
    assert "got g2-standard-48 with 4 GPUs from deploy/vertex-" in found(gpus=1)[0]
    assert "--machine-type must be given with --gpus 0" in found(gpus=0)[0]
    [sentence] = found(gpus=2, machine_type="a2-highgpu-2g")
    assert "--accelerator-type must be given with --machine-type a2-highgpu-2g" in sentence
    [sentence] = found(gpus=0, machine_type="n1-standard-8", accelerator_type="NVIDIA_L4")
    assert "must be left out with --gpus 0" in sentence


def test_a_manifest_that_was_taken_apart_is_one_sentence(tmp_path: Any) -> None:
    (tmp_path / "deploy").mkdir()
    path = tmp_path / "deploy" / "kubernetes-job.yaml"
    with pytest.raises(manifests.ManifestError, match="must be a readable YAML file") as caught:
        manifests.read("kubernetes", tmp_path)
    assert "\n" not in str(caught.value)
    path.write_text("a: [")
    with pytest.raises(manifests.ManifestError, match="must be a readable YAML file") as caught:
        manifests.read("kubernetes", tmp_path)
    assert "\n" not in str(caught.value)
    path.write_text("kind: Job\nmetadata: {}\n")
    with pytest.raises(manifests.ManifestError, match="KeyError occurred: 'spec'; restore it"):
        manifests.fill(manifests.read("kubernetes", tmp_path), request("kubernetes"))
    with pytest.raises(manifests.ManifestError, match="KeyError occurred: 'spec'; restore it"):
        manifests.lasting_mounts(manifests.read("kubernetes", tmp_path), "kubernetes")
    with pytest.raises(manifests.ManifestError, match=r"deploy/vertex-custom-job\.yaml must keep"):
        manifests.machine_problems([], request("vertex"))
