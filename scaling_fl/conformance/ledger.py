"""Count the memory of the tensors that one thread has at once."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Ledger(TorchDispatchMode):
    """Within it, counts the bytes of new tensors from their making to their end."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._open: dict[int, int] = {}
        self.peak = 0
        """The most bytes at once."""

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = {_key(one) for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, Tensor) and _key(one) not in given | self._open.keys():
                storage = one.untyped_storage()
                self._open[_key(one)] = storage.nbytes()
                weakref.finalize(storage, self._open.pop, _key(one), None)
        self.peak = max(self.peak, sum(self._open.values()))
        return result


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
