"""The manifests against the models that the platforms publish; ``.ci/run`` fetches these."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from scaling_fl.submission import manifests
from scaling_fl.submission.request import Request
from tests.unit.submission.platforms import ROOT
from tests.unit.submission.published import rejections

OPTIONS: dict[str, dict[str, Any]] = {
    "vertex": {
        "secrets": ["A_TOKEN=projects/p/secrets/b/versions/3"],
        "service_account": "me@project.iam.gserviceaccount.com",
        "machine_type": "g2-standard-96",
        "spot": True,
    },
}
OTHERS = {"secrets": ["A_TOKEN=keys/a.token"], "namespace": "research", "service_account": "me"}


@pytest.mark.parametrize("platform", manifests.FILES)
def test_the_manifest_as_it_stands_is_accepted(platform: str) -> None:
    assert rejections(manifests.read(platform, ROOT)) == []


@pytest.mark.parametrize("platform", manifests.FILES)
@pytest.mark.parametrize(("nodes", "gpus"), [(1, 0), (1, 8), (2, 1), (5, 4)])
def test_a_filled_manifest_is_accepted(platform: str, nodes: int, gpus: int) -> None:
    if platform == "kubernetes" and nodes > 1:
        return
    given = OPTIONS.get(platform, OTHERS)
    if platform == "vertex" and gpus:
        given = given | {"accelerator_type": "NVIDIA_L4"}
    request = Request(
        platform=platform,
        name="my-job",
        nodes=nodes,
        gpus=gpus,
        image="images/fl:1",
        arguments=["scripts/train_federated.py", "with", "demo", "job_name=$(HOME)"],
        environ=["A=1", "EMPTY=", "DOLLARS=$(A) $$"],
        **given,
    )
    documents = manifests.read(platform, ROOT)
    manifests.fill(documents, request)
    assert rejections(list(yaml.safe_load_all(manifests.write(documents)))) == []


def _at(*path: Any, value: Any) -> Callable[[Any], None]:
    def change(documents: Any) -> None:
        place = documents
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change


_MASTER = (0, "spec", "pytorchReplicaSpecs", "Master")
_MASTER_POD = (*_MASTER, "template", "spec")
_NODE = (0, "spec", "template", "spec", "replicatedJobs", 0, "template", "spec")
_JOB_POD = (0, "spec", "template", "spec")
_POOL = (0, "workerPoolSpecs", 0)


@pytest.mark.parametrize(
    ("platform", "change"),
    [
        ("kubeflow-pytorchjob", _at(*_MASTER, "replica", value=1)),
        ("kubeflow-pytorchjob", _at(*_MASTER_POD, "gracePeriod", value=30)),
        ("kubeflow-pytorchjob", _at(0, "spec", "runPolicy", "backoffLimit", value="many")),
        # What Kubeflow Trainer 2.2 removed.
        ("kubeflow-trainjob", _at(0, "spec", "mlPolicy", "torch", "numProcPerNode", value=1)),
        ("kubeflow-trainjob", _at(*_NODE, "backoffLimit", value="many")),
        ("kubeflow-trainjob", _at(*_NODE, "template", "spec", "gracePeriod", value=30)),
        ("kubeflow-trainjob", _at(0, "spec", "restartPolicy", value="OnFailure")),
        ("kubeflow-trainjob", _at(1, "spec", "trainer", "nodes", value=2)),
        ("kubeflow-trainjob", _at(1, "spec", "trainer", "numNodes", value="2")),
        ("kubernetes", _at(*_JOB_POD, "containers", 0, "args", value=["with", 1])),
        ("kubernetes", _at(*_JOB_POD, "containers", 0, "arguments", value=["with"])),
        ("vertex", _at(*_POOL, "containerSpec", "workingDir", value="/workspace")),
        ("vertex", _at(*_POOL, "containerSpec", "env", value=[{"name": "A", "valueFrom": {}}])),
        ("vertex", _at(*_POOL, "machineSpec", "acceleratorType", value="NVIDIA_L5")),
        ("vertex", _at(0, "scheduling", "strategy", value="CHEAP")),
        ("vertex", _at(0, "scheduling", "timeout", value=3600)),
    ],
)
def test_the_models_reject_what_the_platforms_reject(
    platform: str, change: Callable[[Any], None]
) -> None:
    documents = copy.deepcopy(manifests.read(platform, ROOT))
    change(documents)
    assert rejections(documents) != []
