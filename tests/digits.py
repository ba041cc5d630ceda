"""Real images for tests: scikit-learn's handwritten digits, in the files that data sets come in."""

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

Pixels = NDArray[np.uint8]


def digits() -> tuple[Pixels, NDArray[np.int64]]:
    """Return 1797 images of 8 x 8 pixels with 256 values of grey, and the digit of each."""
    found: Any = load_digits()
    return (found.images * 255 / 16).round().astype(np.uint8), found.target.astype(np.int64)


def write_idx(folder: Path, *, num_train: int = 1500, num_test: int = 297) -> Path:
    """Write digits as Fashion-MNIST's four files."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = digits()
    for name, part in (
        ("train", slice(0, num_train)),
        ("t10k", slice(num_train, num_train + num_test)),
    ):
        _write(folder / f"{name}-images-idx3-ubyte.gz", images[part])
        _write(folder / f"{name}-labels-idx1-ubyte.gz", labels[part].astype(np.uint8))
    return folder


def _write(path: Path, values: Pixels) -> None:
    head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(gzip.compress(head + values.tobytes()))
