"""What the platforms accept, by the models that they publish (see ``.ci/platforms.txt``)."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[3] / ".platforms"
sys.path.append(str(FOLDER))  # last, so that the program's own libraries come first

kubernetes_validate = pytest.importorskip(
    "kubernetes_validate", reason="the platforms' models are not here; .ci/run fetches them"
)
from google.cloud.aiplatform_v1.types import custom_job  # noqa: E402
from google.protobuf import json_format  # noqa: E402
from kubeflow.training import models as training_operator  # noqa: E402
from kubeflow_trainer_api import models as trainer  # noqa: E402

KUBERNETES = "1.37"
Document = dict[str, Any]


def rejections(documents: list[Document]) -> list[str]:
    """List why the platform would reject a manifest: unknown fields, types, missing values."""
    return [text for document in documents for text in _BY_KIND[document.get("kind")](document)]


def _of_kubernetes(document: Document) -> Iterator[str]:
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{error.json_path}: {error.message}"


def _of_pod(template: Document) -> Iterator[str]:
    metadata = {"name": "pod"} | template.get("metadata", {})
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    yield from _of_kubernetes(pod)


def _of_trainer(model: Any) -> Callable[[Document], Iterator[str]]:
    """Reject what the model cannot hold, or holds and does not give back."""

    def of_document(document: Document) -> Iterator[str]:
        try:
            kept = model.from_dict(document).to_dict()
        except ValueError as error:
            yield str(error)
            return
        yield from (f"{path} is unknown" for path in _lost(document, kept))
        for job in document["spec"].get("template", {}).get("spec", {}).get("replicatedJobs", []):
            yield from _of_pod(job["template"]["spec"]["template"])

    return of_document


def _lost(given: Any, kept: Any, path: str = "$") -> Iterator[str]:
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            if key not in kept:
                yield f"{path}.{key}"
            else:
                yield from _lost(value, kept[key], f"{path}.{key}")
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for index, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from _lost(one, other, f"{path}[{index}]")
    elif given != kept:
        yield path


def _of_training_operator(document: Document) -> Iterator[str]:
    yield from _unknown(training_operator.KubeflowOrgV1PyTorchJob, document, "$")
    for replica in document["spec"]["pytorchReplicaSpecs"].values():
        yield from _of_pod(replica["template"])


def _unknown(model: Any, given: Document, path: str) -> Iterator[str]:
    """Follow the model's own table of fields; those of Kubernetes are looked at as pods."""
    names = {key: attribute for attribute, key in model.attribute_map.items()}
    for key, value in given.items():
        here = f"{path}.{key}"
        if key not in names:
            yield f"{here} is unknown"
            continue
        kind = model.openapi_types[names[key]]
        inner = kind.removeprefix("dict(str, ").removesuffix(")")
        if inner.startswith("KubeflowOrg"):
            several = value if kind != inner else {"": value}
            for name, each in several.items():
                yield from _unknown(getattr(training_operator, inner), each, f"{here}.{name}")
        elif inner in ("str", "int", "bool") and type(value).__name__ != inner:
            yield f"{here} must be {inner}"


def _of_vertex(document: Document) -> Iterator[str]:
    try:
        json_format.ParseDict(document, custom_job.CustomJobSpec.pb(custom_job.CustomJobSpec()))
    except json_format.ParseError as error:
        yield str(error)


_BY_KIND: dict[str | None, Callable[[Document], Iterator[str]]] = {
    "Job": _of_kubernetes,
    "TrainingRuntime": _of_trainer(trainer.TrainerV1alpha1TrainingRuntime),
    "TrainJob": _of_trainer(trainer.TrainerV1alpha1TrainJob),
    "PyTorchJob": _of_training_operator,
    None: _of_vertex,
}
