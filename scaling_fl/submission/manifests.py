"""The manifests of ``deploy/``: fill in a request, and leave all other fields unchanged."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from scaling_fl.config import Problem
from scaling_fl.core.errors import UserError
from scaling_fl.submission.request import Request

FOLDER = "deploy"
FILES = {
    "kubeflow-pytorchjob": "kubeflow-pytorchjob.yaml",
    "kubeflow-trainjob": "kubeflow-trainjob.yaml",
    "kubernetes": "kubernetes-job.yaml",
    "vertex": "vertex-custom-job.yaml",
}
GPU = "nvidia.com/gpu"
KUEUE = "kueue.x-k8s.io/queue-name"
# Volumes that end with the pod, or contain no data of the user.
_TEMPORARY = ("emptyDir", "ephemeral", "configMap", "secret", "projected", "downwardAPI")

Document = dict[str, Any]


class ManifestError(UserError):
    """A manifest in ``deploy/`` cannot be filled; the text says why."""


def read(platform: str, root: Path) -> list[Document]:
    """Read the manifest of a platform.

    Raises:
        ManifestError: the file is missing or is not YAML.
    """
    path = root / FOLDER / FILES[platform]
    try:
        return list(yaml.safe_load_all(path.read_text()))
    except (OSError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ManifestError(f"{path} must be a readable YAML file, got: {reason}.") from None


def fill(documents: list[Document], request: Request) -> None:
    """Write the request to the fields of the manifest.

    Raises:
        ManifestError: a field is missing.
    """
    with _expecting_fields(request.platform):
        _FILL[request.platform](documents, request)


def write(documents: list[Document]) -> str:
    return yaml.safe_dump_all(documents, sort_keys=False, width=100)


def lasting_mounts(documents: list[Document], platform: str) -> list[str]:
    """List the mount paths of volumes that outlive the container of the first machine.

    Raises:
        ManifestError: the manifest has no such container.
    """
    if platform == "vertex":
        return []
    with _expecting_fields(platform):
        pod = next(pods(documents, platform))
        temporary = {v["name"] for v in pod.get("volumes", []) if any(k in v for k in _TEMPORARY)}
        mounts = pod["containers"][0].get("volumeMounts", [])
        return [mount["mountPath"] for mount in mounts if mount["name"] not in temporary]


def machine_problems(documents: list[Document], request: Request) -> list[Problem]:
    """Find out whether the machines of Vertex AI have the GPUs of the request.

    Raises:
        ManifestError: the manifest has no machine.
    """
    if request.platform != "vertex":
        return []
    with _expecting_fields(request.platform):
        machine = documents[0]["workerPoolSpecs"][0]["machineSpec"]
        return list(_machine_problems(machine, request))


@contextmanager
def _expecting_fields(platform: str) -> Iterator[None]:
    """Turn the error of a missing or changed field into a ``ManifestError``."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ManifestError(
            f"{FOLDER}/{FILES[platform]} must keep the fields that are filled in, but "
            f"{type(error).__name__} occurred: {error}; restore it from the repository."
        ) from None


def _machine_problems(machine: Mapping[str, Any], request: Request) -> Iterator[Problem]:
    if request.machine_type is None and request.gpus != machine.get("acceleratorCount", 0):
        yield Problem(
            "--machine-type",
            f"must be given with --gpus {request.gpus}",
            f"{machine['machineType']} with {machine.get('acceleratorCount', 0)} GPUs from "
            f"{FOLDER}/{FILES['vertex']}",
            "name a machine that has as many, such as g2-standard-12 for 1 NVIDIA_L4",
        )
    if request.machine_type and request.gpus > 0 and not request.accelerator_type:
        remedy = "add it, such as --accelerator-type NVIDIA_L4"
        rule = f"must be given with --machine-type {request.machine_type}"
        yield Problem("--accelerator-type", rule, "none", remedy)
    if request.accelerator_type and request.gpus == 0:
        rule = "must be left out with --gpus 0"
        yield Problem("--accelerator-type", rule, request.accelerator_type, "leave it out")


def pods(documents: list[Document], platform: str) -> Iterator[dict[str, Any]]:
    """Yield the pod specifications of a Kubernetes manifest; the first is of the first machine."""
    spec = documents[0]["spec"]
    if platform == "kubeflow-pytorchjob":
        replicas = spec["pytorchReplicaSpecs"]
        yield from (replicas[r]["template"]["spec"] for r in ("Master", "Worker") if r in replicas)
    elif platform == "kubeflow-trainjob":
        yield spec["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    else:
        yield spec["template"]["spec"]


def _fill_pytorchjob(documents: list[Document], request: Request) -> None:
    _fill_metadata(documents, request)
    replicas = documents[0]["spec"]["pytorchReplicaSpecs"]
    replicas["Worker"]["replicas"] = request.nodes - 1
    if request.nodes == 1:
        del replicas["Worker"]
    for pod in pods(documents, request.platform):
        _fill_pod(pod, request)
        _fill_container(pod["containers"][0], request)
        _fill_gpus(pod["containers"][0], "resources", request.gpus)


def _fill_trainjob(documents: list[Document], request: Request) -> None:
    _fill_metadata(documents, request)
    for pod in pods(documents, request.platform):
        _fill_pod(pod, request)
        pod["containers"][0]["image"] = request.image
    job = documents[1]["spec"]
    job["runtimeRef"]["name"] = request.name
    job["trainer"]["numNodes"] = request.nodes
    _fill_container(job["trainer"], request)
    _fill_gpus(job["trainer"], "resourcesPerNode", request.gpus)


def _fill_kubernetes(documents: list[Document], request: Request) -> None:
    _fill_metadata(documents, request)
    if request.serves_queue:  # every machine takes runs for itself
        several = {"completions": request.nodes, "parallelism": request.nodes}
        documents[0]["spec"] |= {"completionMode": "Indexed", **several}
    for pod in pods(documents, request.platform):
        _fill_pod(pod, request)
        _fill_container(pod["containers"][0], request)
        _fill_gpus(pod["containers"][0], "resources", request.gpus)


def _fill_vertex(documents: list[Document], request: Request) -> None:
    spec = documents[0]
    first, others = spec["workerPoolSpecs"]
    others["replicaCount"] = request.nodes - 1
    spec["workerPoolSpecs"] = [first, others] if request.nodes > 1 else [first]
    for pool in spec["workerPoolSpecs"]:
        _fill_machine(pool["machineSpec"], request)
        container = pool["containerSpec"]
        container["imageUri"] = request.image
        container["args"] = list(request.arguments)
        values = request.variables | request.managed_secrets
        _fill_environment(container, {n: {"value": _literally(v)} for n, v in values.items()})
    if request.service_account:
        spec["serviceAccount"] = request.service_account
    if request.spot:
        spec["scheduling"]["strategy"] = "SPOT"


def _fill_machine(machine: dict[str, Any], request: Request) -> None:
    if request.machine_type:
        machine["machineType"] = request.machine_type
    if request.accelerator_type:
        machine["acceleratorType"] = request.accelerator_type
    machine["acceleratorCount"] = request.gpus
    if request.gpus == 0:
        for field in ("acceleratorType", "acceleratorCount"):
            machine.pop(field, None)


def _fill_metadata(documents: list[Document], request: Request) -> None:
    for document in documents:
        document["metadata"]["name"] = request.name
        if request.namespace:
            document["metadata"]["namespace"] = request.namespace
    if request.kueue:
        documents[-1]["metadata"].setdefault("labels", {})[KUEUE] = request.kueue


def _fill_pod(pod: dict[str, Any], request: Request) -> None:
    if request.service_account:
        pod["serviceAccountName"] = request.service_account


def _fill_container(container: dict[str, Any], request: Request) -> None:
    container["image"] = request.image
    container["args"] = [_literally(argument) for argument in request.arguments]
    values = {name: {"value": _literally(v)} for name, v in request.variables.items()}
    secrets = {
        name: {"valueFrom": {"secretKeyRef": reference}}
        for name, reference in request.kubernetes_secrets.items()
    }
    _fill_environment(container, values | secrets)


def _fill_environment(container: dict[str, Any], given: Mapping[str, dict[str, Any]]) -> None:
    others = [entry for entry in container.get("env") or [] if entry["name"] not in given]
    container["env"] = [*others, *({"name": name, **source} for name, source in given.items())]


def _fill_gpus(container: dict[str, Any], field: str, gpus: int) -> None:
    resources = container.setdefault(field, {})
    for kind in ("requests", "limits"):
        resources.get(kind, {}).pop(GPU, None)
    if gpus:
        resources.setdefault("limits", {})[GPU] = gpus
    elif not resources.get("limits", True):
        del resources["limits"]


def _literally(text: str) -> str:
    """Escape ``$(`` and ``$$``, which Kubernetes and Vertex AI would replace; others stay."""
    return re.sub(r"\$(?=[$(])", "$$", text)


_FILL: dict[str, Callable[[list[Document], Request], None]] = {
    "kubeflow-pytorchjob": _fill_pytorchjob,
    "kubeflow-trainjob": _fill_trainjob,
    "kubernetes": _fill_kubernetes,
    "vertex": _fill_vertex,
}
