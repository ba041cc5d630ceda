"""The packaged vision transformer: how its file is read, and that every tensor is accounted for."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Dinov2Model

from scaling_fl.learning.models.dinov2 import _todays, dinov2_small_folder, small_config
from scaling_fl.learning.models.onnx_weights import read_onnx


def varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def onnx_file(path: Path) -> tuple[Path, np.ndarray]:
    """Write a graph of one node and two weights, one of which is of whole numbers."""
    values = np.arange(600, dtype="<f4").reshape(2, 300)
    weight = field(1, 2) + field(1, 300) + field(2, 1) + field(8, b"w") + field(9, values.tobytes())
    other = field(1, 1) + field(2, 7) + field(8, b"n") + field(9, struct.pack("<q", 4))
    node = field(1, b"x") + field(1, b"w") + field(2, b"y") + field(3, b"/a/MatMul")
    graph = field(1, node) + field(2, b"main") + field(5, weight) + field(5, other)
    path.write_bytes(field(1, 8) + field(2, b"made up") + field(7, graph))
    return path, values


def test_weights_and_nodes_are_read(tmp_path: Path) -> None:
    path, values = onnx_file(tmp_path / "a.onnx")
    found = read_onnx(path)
    assert list(found.tensors) == ["w"]
    assert torch.equal(found.tensors["w"], torch.from_numpy(values))
    assert found.inputs == {"/a/MatMul": ["x", "w"]}


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path, _ = onnx_file(tmp_path / "a.onnx")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="must be whole"):
        read_onnx(path)


def test_the_names_are_those_of_todays_model() -> None:
    with torch.device("meta"):
        names = set(Dinov2Model(small_config()).state_dict())
    old = "encoder.layer.3.attention.attention.query.weight"
    assert _todays(old) == "encoder.layer.3.attention.q_proj.weight"
    assert _todays(old) in names
    assert _todays("encoder.layer.3.attention.output.dense.bias") in names


@pytest.mark.slow
def test_the_packaged_backbone_answers_as_its_onnx_file_does() -> None:
    """The numbers are those of onnxruntime 1.32 on the file, behind its last LayerNorm."""
    model = Dinov2Model.from_pretrained(dinov2_small_folder()).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == 22_056_576
    wave = np.sin(np.arange(3 * 224 * 224) / 100).reshape(1, 3, 224, 224).astype(np.float32)
    with torch.inference_mode():
        (seen,) = model(pixel_values=torch.from_numpy(wave)).last_hidden_state
    of_image = torch.tensor([1.05675, -0.26190, 1.05685, -4.08788, -0.70435, -0.25772])
    of_a_patch = torch.tensor([1.53933, -0.96853, 0.13552])
    torch.testing.assert_close(seen[0, :6], of_image, atol=1e-4, rtol=0)
    torch.testing.assert_close(seen[200, :3], of_a_patch, atol=1e-4, rtol=0)
