"""The tensors of a checkpoint as safetensors files: named views of the vector, and plain ones."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from scaling_fl.core.vector import Layout
from scaling_fl.runtime.record.manifest import TornCheckpoint


def check_vector(vector: Tensor, layout: Layout) -> None:
    """Raise ValueError unless a vector is fp32, 1-D, on the CPU and of the layout's size."""
    if vector.dtype != torch.float32 or vector.device.type != "cpu" or vector.ndim != 1:
        raise ValueError(
            f"vector must be one-dimensional fp32 on the CPU, got {vector.ndim} dimensions of"
            f" {vector.dtype} on {vector.device}."
        )
    if vector.numel() != layout.size:
        raise ValueError(
            f"vector must have the layout's {layout.size} elements, got {vector.numel()}."
        )


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise TornCheckpoint where a value is NaN or infinite, which no round makes."""
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise TornCheckpoint(f"{name} holds values that are not finite")


def write_vector(path: Path, vector: Tensor, layout: Layout) -> None:
    write_tensors(path, layout.views(vector))


def read_vector(path: Path, layout: Layout) -> Tensor:
    """Read the named tensors into one vector. Raises: TornCheckpoint when they do not fit."""
    vector = torch.empty(layout.size, dtype=torch.float32)
    tensors = load_file(path)
    views = layout.views(vector)
    if tensors.keys() != views.keys():
        raise TornCheckpoint("its tensors are not those of its manifest")
    for name, view in views.items():
        if tensors[name].dtype != torch.float32 or tensors[name].shape != view.shape:
            raise TornCheckpoint(f"{name} does not have the shape and type of its manifest")
        view.copy_(tensors[name])
    return vector


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write named tensors to a new file that those may read who may read other new files."""
    path.touch()
    mode = path.stat().st_mode
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)
    path.chmod(mode)  # safetensors keeps what it writes to its owner


def read_tensors(path: Path) -> dict[str, Tensor]:
    # Copies, because what is read is mapped from a file that retention or the scratch removes.
    return {name: value.clone() for name, value in load_file(path).items()}
