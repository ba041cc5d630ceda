"""The weights in an ONNX file, read without its library: names, shapes and fp32 values.

A file is a protocol buffer, whose fields have a number and a kind. Of a model (ModelProto), field 7
is the graph; of a graph, 1 are the nodes and 5 the weights; of a node, 1 are the inputs and 3 the
name; of a weight (TensorProto), 1 are the sizes, 2 the type, 8 the name and 9 the values.
Sources: onnx.proto of ONNX, and protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

_FP32 = 1


class OnnxWeights(NamedTuple):
    """``tensors`` by their names, and by the name of each node the names of its ``inputs``."""

    tensors: dict[str, Tensor]
    inputs: dict[str, list[str]]


def read_onnx(path: Path) -> OnnxWeights:
    """Read the fp32 weights of a model, and which nodes they go into.

    Raises:
        ValueError: the file is not whole.
    """
    found = OnnxWeights({}, {})
    for number, graph in _fields(memoryview(path.read_bytes())):
        for kind, part in _fields(graph) if number == 7 else ():
            if kind == 1:
                name, inputs = _node(part)
                found.inputs[name] = inputs
            elif kind == 5:
                found.tensors.update(_tensor(part))
    return found


def _fields(message: Any) -> Iterator[tuple[int, Any]]:
    """Yield the number and the value of each field: a number, or the bytes of anything else."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
        else:
            length, at = _varint(message, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value, at = message[at : at + length], at + length
            if at > len(message):
                raise ValueError("an ONNX file must be whole, and is cut short")
        yield key >> 3, value


def _varint(message: Any, at: int) -> tuple[int, int]:
    """Read a number of 7 bits a byte, the lowest first; returns it and the place after it."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _node(message: Any) -> tuple[str, list[str]]:
    fields = list(_fields(message))
    (name,) = [bytes(value).decode() for number, value in fields if number == 3] or [""]
    return name, [bytes(value).decode() for number, value in fields if number == 1]


def _tensor(message: Any) -> dict[str, Tensor]:
    fields = list(_fields(message))
    sizes = [value for number, value in fields if number == 1]
    rest = {number: value for number, value in fields if number != 1}
    if rest.get(2) != _FP32 or 9 not in rest:
        return {}
    values = np.frombuffer(rest[9], dtype="<f4").reshape(sizes).copy()
    return {bytes(rest[8]).decode(): torch.from_numpy(values)}
