"""The platforms' side of a submission: what their containers see of a manifest."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]

Document = dict[str, Any]
Container = tuple[list[str], dict[str, str]]
"""What a container is started with: its arguments and its environment."""


def containers(documents: list[Document], secrets: dict[str, str]) -> list[Container]:
    """Play the platform's controller: what every machine's container is started with.

    ``secrets`` are the values of Kubernetes Secrets, as ``name/key``.
    """
    play = _CONTROLLERS[documents[-1].get("kind")]
    return list(play(documents, secrets))


def _pytorchjob(documents: list[Document], secrets: dict[str, str]) -> Iterator[Container]:
    """Set the variables of the training operator v1.9 (pkg/controller.v1/pytorch/envvar.go)."""
    job = documents[0]
    specs = job["spec"]["pytorchReplicaSpecs"]
    replicas = {role: spec["replicas"] for role, spec in specs.items()}
    processes = job["spec"].get("nprocPerNode", "auto")
    size = sum(replicas.values())
    address = {"ADDR": f"{job['metadata']['name']}-master-0", "PORT": "23456"}
    for role, count in replicas.items():
        container = specs[role]["template"]["spec"]["containers"][0]
        assert container["name"] == "pytorch"
        for index in range(count):
            rank = index + (role == "Worker")
            yield _started(
                container,
                secrets,
                {f"{prefix}MASTER_{k}": v for k, v in address.items() for prefix in ("", "PET_")}
                | {
                    "WORLD_SIZE": str(size * (int(processes) if processes.isdecimal() else 1)),
                    "RANK": str(rank),
                    "PET_NPROC_PER_NODE": processes,
                    "PET_NODE_RANK": str(rank),
                    "PET_NNODES": str(size),
                },
            )


def _trainjob(documents: list[Document], secrets: dict[str, str]) -> Iterator[Container]:
    """Set the variables of Kubeflow Trainer v2 (pkg/runtime/framework/plugins/torch/torch.go)."""
    runtime, job = documents
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    assert job["spec"]["runtimeRef"]["kind"] == runtime["kind"]
    spaces = [document["metadata"].get("namespace") for document in documents]
    assert spaces[0] == spaces[1]
    [node] = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert node["template"]["metadata"]["labels"] == {
        "trainer.kubeflow.org/trainjob-ancestor-step": "trainer"
    }
    [own] = node["template"]["spec"]["template"]["spec"]["containers"]
    assert (node["name"], own["name"]) == ("node", "node")
    assert "torch" in runtime["spec"]["mlPolicy"]
    name, trainer = job["metadata"]["name"], job["spec"]["trainer"]
    for index in range(trainer["numNodes"]):
        yield _started(
            own | trainer,
            secrets,
            {
                "PET_NNODES": str(trainer["numNodes"]),
                "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
                "PET_NODE_RANK": str(index),  # from the pod's completion index
                "PET_MASTER_ADDR": f"{name}-node-0-0.{name}",
                "PET_MASTER_PORT": "29500",
                "JOB_COMPLETION_INDEX": str(index),
            },
        )


def _kubernetes(documents: list[Document], secrets: dict[str, str]) -> Iterator[Container]:
    yield _started(documents[0]["spec"]["template"]["spec"]["containers"][0], secrets, {})


def _started(container: Document, secrets: dict[str, str], own: dict[str, str]) -> Container:
    """Resolve a container's variables and arguments as a kubelet does, the platform's added."""
    environ: dict[str, str] = {}
    for entry in container.get("env", []):
        if "value" in entry:
            environ[entry["name"]] = _expand(entry["value"], environ)
            continue
        reference = entry["valueFrom"]["secretKeyRef"]
        key = f"{reference['name']}/{reference['key']}"
        if key in secrets:
            environ[entry["name"]] = secrets[key]
        else:
            assert reference.get("optional"), f"the pod would not start without {key}"
    environ |= own
    return [_expand(argument, environ) for argument in container["args"]], environ


def _expand(text: str, environ: dict[str, str]) -> str:
    """Replace ``$(NAME)`` by the variable if there is one, and ``$$`` by ``$``."""

    def replaced(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else environ.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", replaced, text)


def _vertex(documents: list[Document], secrets: dict[str, str]) -> Iterator[Container]:
    """Set CLUSTER_SPEC as Vertex AI documents it, and expand values as its EnvVar says."""
    pools = documents[0]["workerPoolSpecs"]
    cluster = {
        f"workerpool{number}": [
            f"training-workerpool{number}-ab-{index}:2222" for index in range(pool["replicaCount"])
        ]
        for number, pool in enumerate(pools)
    }
    for number, pool in enumerate(pools):
        container = pool["containerSpec"]
        for index in range(pool["replicaCount"]):
            task = {"type": f"workerpool{number}", "index": index, "trial": ""}
            spec = {"cluster": cluster, "environment": "cloud", "task": task}
            given: dict[str, str] = {}
            for entry in container["env"]:
                given[entry["name"]] = _expand(entry["value"], given)
            yield container["args"], given | {"CLUSTER_SPEC": json.dumps(spec)}


_CONTROLLERS = {
    "PyTorchJob": _pytorchjob,
    "TrainJob": _trainjob,
    "Job": _kubernetes,
    None: _vertex,
}
