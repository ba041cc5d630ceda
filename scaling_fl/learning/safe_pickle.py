"""Pickles of published data sets, read without running anything that stands in them.

A pickle can name any function and have it called. Of those that are named here only NumPy's makers
of arrays are, so that the result is of NumPy's and Python's plain types.
"""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from scaling_fl.learning.text.labelled import DataError

if TYPE_CHECKING:
    from torch import Tensor


def _latin_1(text: str, encoding: str = "latin1") -> bytes:
    """Encode bytes that Python 2 has written as text, the one use of ``_codecs.encode`` in data."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding}")
    return text.encode("latin1")


# NumPy 2 moved its core, and warns of the name that older files have.
_MULTIARRAY = np._core.multiarray  # type: ignore[attr-defined]
_PLAIN: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin_1,
    **{
        (f"{core}.multiarray", name): getattr(_MULTIARRAY, name)
        for core in ("numpy.core", "numpy._core")
        for name in ("_reconstruct", "scalar")
    },
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PLAIN:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return _PLAIN[module, name]


def load_plain(file: BinaryIO, path: str, *, encoding: str = "ASCII") -> Any:
    """Read one pickle of NumPy's and Python's plain types.

    ``encoding`` is that of texts that Python 2 wrote; ``bytes`` leaves them bytes.

    Raises:
        DataError: the pickle holds anything else, or is damaged; it names ``path``.
    """
    try:
        return _PlainUnpickler(file, encoding=encoding).load()
    except Exception as error:  # a damaged pickle raises whatever its bytes come to
        reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        raise DataError(
            f"{path}: a pickle must hold plain values and NumPy's arrays alone and be whole, and "
            f"this one does not or is not ({reason or type(error).__name__}); fetch it again from "
            "where the data was published."
        ) from error


def load_tensors(path: Path) -> "dict[str, Tensor]":
    """Read a file of torch's own format that holds named tensors and nothing else.

    Raises:
        DataError: it holds anything else, or is damaged.
    """
    import torch  # takes seconds, which those who read archives of data are spared

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever its bytes come to
        reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        raise _no_tensors(path, reason or type(error).__name__) from error
    if not isinstance(found, dict) or not all(map(torch.is_tensor, found.values())):
        raise _no_tensors(path, "it holds something else")
    return dict(found)


def _no_tensors(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path}: this file must be a whole state dict of torch, of named tensors alone, and is "
        f"not ({reason}); fetch it again, or save the model as safetensors."
    )
