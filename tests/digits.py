"""Real images for tests: scikit-learn's handwritten digits, in the files that data sets come in."""

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from scaling_fl.learning.tasks.images.flair import LABELS as FLAIR_LABELS

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


def write_flair(folder: Path, *, num_users: int = 4, num_each: int = 12) -> Path:
    """Write digits as FLAIR has photos, with the labels of the digit and of its half."""
    images, labels = digits()
    records = []
    for number in range(num_users * num_each):
        path = folder / "small_images" / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[number]).save(path, quality=95)
        digit = int(labels[number])
        records.append(
            {
                "image_id": path.stem,
                "user_id": f"user{number % num_users}@N00",
                "labels": [FLAIR_LABELS[digit], FLAIR_LABELS[10 + digit // 5]],
                "partition": "test" if number % num_each > num_each - 4 else "train",
            }
        )
    (folder / "labels_and_metadata.json").write_text(json.dumps(records))
    return folder
