"""Passes through a model that compute shapes and no values, by torch's fake tensors."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@contextmanager
def on_shapes(outline: nn.Module) -> Iterator[nn.Module]:
    """Give a copy of an outline that takes real batches: it computes the shapes of what follows.

    Torch chooses the kernels that it would choose on the CPU. What depends on the batch alone has
    its values, because these decide shapes, too: what is padded, and which positions are learned.
    """
    model = deepcopy(outline)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        with _KnownValues():  # type: ignore[no-untyped-call]
            yield model


class _KnownValues(TorchDispatchMode):
    """Computes what depends on known values alone; all else has shapes."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if tensors and not any(isinstance(tensor, FakeTensor) for tensor in tensors):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if func is torch.ops.aten.index.Tensor:
            args = (args[0], _places(args[1]))
        return func(*args, **kwargs)


def _places(indices: list[Tensor | None]) -> list[Tensor | None]:
    """Write marks as the places that they mark, of which there are then so many as there are."""
    found: list[Tensor | None] = []
    for index in indices:
        if index is None or index.dtype != torch.bool or isinstance(index, FakeTensor):
            found.append(index)
        else:
            with unset_fake_temporarily():
                found += index.nonzero().unbind(1)
    return found
