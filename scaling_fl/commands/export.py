"""The command ``scripts/merge_adapter.py``: checkpoints -> a folder that others can load."""

import os
import signal
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from scaling_fl.commands.endings import Misused, end, show, stage
from scaling_fl.composition.own_models import model_of
from scaling_fl.composition.restored import (
    check_alike,
    moved_base,
    restore,
    settings_of,
)
from scaling_fl.composition.tasks import make_task
from scaling_fl.config import Config
from scaling_fl.config.load_settings import LoadSettings
from scaling_fl.core.json_text import json_text
from scaling_fl.jobs.job import check_outlives_container
from scaling_fl.learning.models.adapter_card import BESIDE
from scaling_fl.learning.models.export import merge_adapter
from scaling_fl.learning.models.loading import NICKNAMES, PACKAGED
from scaling_fl.methods.merging.means import average
from scaling_fl.methods.wire.direction import Direction
from scaling_fl.methods.wire.payloads import payload_size
from scaling_fl.runtime.storage import LocalStorage
from scaling_fl.runtime.storage.base import remove_if_abandoned
from scaling_fl.runtime.storage.errors import explain
from scaling_fl.runtime.tracking.places import Saved, every_saved, open_saved
from scaling_fl.runtime.tracking.runs import from_here

ORIGIN = "merged_from.json"


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What was asked for."""

    checkpoints: list[str]
    out: Path
    weights: list[float] | None = None
    client: int | None = None
    node: str | None = None
    """The folder of the job on the client's node, if the client's part of the model is there."""
    quantize: str | None = None
    model: str | None = None
    adapter: bool = False
    each: bool = False
    zip: bool = False


@dataclass(frozen=True, kw_only=True)
class Mean:
    """The state to be written, and what the checkpoints went through to become it."""

    vector: Tensor
    payload_bytes: int | None
    """Length of the payload of each checkpoint; None when they were not quantised."""


def main(options: Mapping[str, Any]) -> int:
    """Run the command with its parsed options; returns the exit code."""
    # From here on Ctrl-C clears away what is half written.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return end(partial(_run, ExportRequest(**options)))


def _run(request: ExportRequest) -> None:
    with redirect_stdout(sys.stderr):  # what libraries print is no result
        text = "\n".join(map(merge, _requests(request)))
    show(text)


def _requests(request: ExportRequest) -> list[ExportRequest]:
    """Make one request for each checkpoint that is kept, if all of them are asked for."""
    if not request.each:
        return [request]
    if len(request.checkpoints) > 1 or request.weights:
        raise Misused(
            f"--each writes all checkpoints of one job, got {len(request.checkpoints)} places; "
            "give one, without --weights."
        )
    _check_is_free(request.out)
    places = every_saved(request.checkpoints[0], stage)
    return [
        replace(
            request, checkpoints=[place], out=request.out / place.rpartition("/")[2], each=False
        )
        for place in places
    ]


def merge(request: ExportRequest) -> str:
    """Write the folder that was asked for and return what to tell about it.

    Raises:
        UserError: with one sentence.
    """
    weights = _checked(request)
    check_outlives_container(request.out.parent, "--out")
    states = []
    for place in request.checkpoints:
        stage(f"loading {place}")
        states.append(open_saved(place, stage))
    check_alike(states, ignoring=["model"] if request.model else [])
    config = settings_of(states[0], {"model": request.model} if request.model else {})
    if request.adapter and config.adapter.kind not in ("lora", "dora"):
        raise Misused(
            f"--adapter needs checkpoints of adapter.kind=lora or dora, got {config.adapter.kind}; "
            "drop it for a folder with the whole model."
        )
    moved = _mean_base(states, weights)
    if request.adapter and moved is not None:
        raise Misused(
            "--adapter needs checkpoints whose base model stayed as it was, and "
            f"{states[0].where} has moved it, as merge.method=exact and stack do; drop --adapter "
            "for a folder with the whole model."
        )
    vectors = [
        model_of(state, request.client, state.checkpoint.vector, node=request.node)
        for state in states
    ]
    mean = mean_of(vectors, weights, request.quantize)
    task = make_task(config, labels=states[0].label_names)
    stage(f"loading model {config.model}")
    device, in_fp32 = torch.device("cpu"), not request.adapter
    trainer = restore(states[0], config, task, device, in_fp32=in_fp32)
    trainer.vector.copy_(mean.vector)
    trainer.base.move_to(moved)
    with _appearing(request.out, zipped=request.zip) as folder:
        if request.adapter:
            base_model = _base_model(config)
            task.save_adapter(trainer.model, folder, base_model=base_model)
            if base_model == BESIDE:
                whole = make_task(config.model_copy(update={"load": LoadSettings()}))
                task.save_model(whole.load_model(), folder / BESIDE)
        else:
            task.save_model(merge_adapter(trainer.model), folder)
        origin = _origin(states, weights, request.quantize, mean, request.client)
        (folder / ORIGIN).write_text(json_text(origin, indent=1))
        for file in _files(folder):  # safetensors keeps what it writes to its owner
            file.chmod((folder / ORIGIN).stat().st_mode)
    return _closing_text(request, states, config, mean)


def _checked(request: ExportRequest) -> list[float]:
    """Check the options against each other and the disk; return a weight for each checkpoint."""
    places = [request.out] + ([_zip_of(request.out)] if request.zip else [])
    for path in places:
        _check_is_free(path)
    if request.weights is None:
        return [1.0] * len(request.checkpoints)
    if len(request.weights) != len(request.checkpoints):
        raise Misused(
            f"--weights must have one number for each checkpoint, got {len(request.weights)} for "
            f"{len(request.checkpoints)}; give as many."
        )
    return request.weights


def _check_is_free(path: Path) -> None:
    is_empty_folder = path.is_dir() and path.suffix != ".zip" and not any(path.iterdir())
    if path.exists() and not is_empty_folder:
        raise Misused(
            f"--out must name a folder that does not exist yet or is empty, and {path} does "
            "exist; choose another one or remove it."
        )


def mean_of(vectors: Sequence[Tensor], weights: Sequence[float], codec: str | None) -> Mean:
    """Average vectors (fp32, one size, on the CPU), each as it arrives through a codec, if any.

    What several of them come to goes through the codec once more: it is handed on like them.
    Source of that order: CMU's entry to PFL-DocVQA, which left out the first checkpoint.
    """
    if codec is None:
        return Mean(vector=average(vectors, weights), payload_bytes=None)
    way, size = Direction(codec=codec), vectors[0].numel()
    vector = average((way.send(vector, size).decode() for vector in vectors), weights)
    if len(vectors) > 1:
        vector = way.send(vector, size).decode()
    return Mean(vector=vector, payload_bytes=payload_size(size, None, codec))


def _mean_base(states: Sequence[Saved], weights: Sequence[float]) -> Tensor | None:
    """Average what the bases have moved by; None if none has."""
    found = [moved_base(state) for state in states]
    some = next((moved for moved in found if moved is not None), None)
    if some is None:
        return None
    still = torch.zeros_like(some)
    return average((still if moved is None else moved for moved in found), weights)


def _base_model(config: Config) -> str:
    """Name the model that an adapter belongs to as others can find it, or where it is saved."""
    if config.model in ("tiny", "smollm2"):
        return BESIDE
    return (NICKNAMES | PACKAGED).get(config.model, config.model)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _origin(
    states: Sequence[Saved],
    weights: Sequence[float],
    codec: str | None,
    mean: Mean,
    client: int | None,
) -> dict[str, Any]:
    """Say what a folder was made from, so that it can be traced to its runs."""
    rows = [
        {
            "checkpoint": state.where,
            "round": state.checkpoint.round,
            "digest": state.checkpoint.digest,
            "weight": weight,
        }
        for state, weight in zip(states, weights, strict=True)
    ]
    found = {"checkpoints": rows, "quantize": codec, "payload_bytes": mean.payload_bytes}
    return found if client is None else {**found, "client": client}


def _closing_text(
    request: ExportRequest, states: Sequence[Saved], config: Config, mean: Mean
) -> str:
    reads = "a model that reads pages" if config.task_name == "docvqa" else "a language model"
    whole = "a classifier" if states[0].label_names else reads
    kind = "an adapter" if request.adapter else whole
    source = (
        from_here(states[0].where) if len(states) == 1 else f"the mean of {len(states)} checkpoints"
    )
    lines = [f"wrote {from_here(str(request.out))}: {kind} for {config.model}, from {source}"]
    if mean.payload_bytes is not None:
        plain = payload_size(mean.vector.numel(), None, "none")
        lines.append(
            f"{request.quantize} payload of each checkpoint: {mean.payload_bytes:,} bytes "
            f"({plain:,} in fp32)"
        )
    if request.zip:
        path = _zip_of(request.out)
        lines.append(f"wrote {from_here(str(path))}: {path.stat().st_size:,} bytes")
    return "\n".join(lines)


def _zip_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.zip")


@contextmanager
def _appearing(out: Path, *, zipped: bool) -> Iterator[Path]:
    """Give a folder to fill, which becomes ``out`` as a whole when all went well.

    Raises:
        StorageError: the disk is full, refuses or fails.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for path in out.parent.iterdir():
            remove_if_abandoned(path)  # what a killed command left half written
        with LocalStorage(out.parent).staging() as staging:
            folder = staging / out.name
            folder.mkdir()
            yield folder
            if zipped:
                _zip(folder, staging / "zip")
            os.replace(folder, out)
            if zipped:
                os.replace(staging / "zip", _zip_of(out))
    except (OSError, SafetensorError) as error:
        raise explain(error, f"write {out}") from None


def _zip(folder: Path, path: Path) -> None:
    # Weights hardly become smaller, which is not worth the minutes.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in _files(folder):
            archive.write(file, file.relative_to(folder.parent))
