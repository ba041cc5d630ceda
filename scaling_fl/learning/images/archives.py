"""The files in which CIFAR-10, MNIST's relatives and NumPy have images: arrays of pixels.

Sources: www.cs.toronto.edu/~kriz/cifar.html for CIFAR's two layouts, yann.lecun.com/exdb/mnist for
the IDX format.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling_fl.learning.images.pictures import Pictures
from scaling_fl.learning.safe_pickle import load_plain
from scaling_fl.learning.tables.sources import damaged, reading
from scaling_fl.learning.text.labelled import DataError

_SIDE, _CHANNELS = 32, 3
_ROW = _CHANNELS * _SIDE**2
_IDX_UINT8 = 8
_ARCHIVES = (".tar", ".tar.gz", ".tgz")


class PixelArrays(NamedTuple):
    """Images as they stand in a file: uint8 of (n, height, width, channels), and their labels."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def pictures(self, path: str, num_labels: int) -> Pictures:
        """Check that each image has a label, and that there is such a label."""
        if len(self.pixels) != len(self.labels):
            raise DataError(
                f"{path}: each image must have a label, and there are {len(self.pixels)} images and"
                f" {len(self.labels)} labels; fetch the files again."
            )
        wrong = np.flatnonzero((self.labels < 0) | (self.labels >= num_labels))
        if len(wrong):
            raise DataError(
                f"{path}, image {wrong[0] + 1}: a label must be from 0 to {num_labels - 1}, got "
                f"{self.labels[wrong[0]]}; check that these are the files of this task."
            )
        return Pictures.of(lambda number: self.pixels[number], self.labels)


def is_archive(path: str) -> bool:
    return path.lower().endswith(_ARCHIVES)


def members(path: str, names: Collection[str]) -> dict[str, bytes]:
    """Read the files of some names that a tar archive, or a folder as ``places`` sees it, has."""
    if is_archive(path):
        return _in_archive(path, names)
    found: dict[str, bytes] = {}
    for name, file in places(Path(path), names).items():
        with reading(str(file)):
            found[name] = file.read_bytes()
    return found


def places(root: Path, names: Collection[str]) -> dict[str, Path]:
    """Find the files of some names in a folder or in one of those inside of it."""
    found = {file.name: file for file in root.glob("*/*") if file.name in names}
    found |= {file.name: file for file in root.glob("*") if file.name in names}
    return {name: file for name, file in found.items() if file.is_file()}


def _in_archive(path: str, names: Collection[str]) -> dict[str, bytes]:
    import fsspec

    found: dict[str, bytes] = {}
    with ExitStack() as stack:
        stack.enter_context(reading(path))
        raw = stack.enter_context(fsspec.open(path, "rb"))
        archive = stack.enter_context(tarfile.open(fileobj=raw, mode="r|*"))
        for member in archive:
            name = member.name.rpartition("/")[2]
            file = archive.extractfile(member) if name in names else None
            if file is not None:
                found[name] = file.read()
    return found


def cifar_of_python(files: Mapping[str, bytes], path: str) -> PixelArrays:
    """Read batches of the archive for Python: pickles of ``data`` and ``labels``."""
    parts = []
    for name, content in files.items():
        where = f"{path}/{name}"
        batch = load_plain(io.BytesIO(content), where, encoding="bytes")
        try:
            data, labels = batch[b"data"], np.array(batch[b"labels"], dtype=np.int64)
            parts.append(PixelArrays(_from_planes(data), labels))
        except (KeyError, TypeError, ValueError, OverflowError):
            raise DataError(
                f"{where}: a batch must have data of {_ROW} bytes for each image, and labels, and "
                "this one has not; fetch the archive again."
            ) from None
    return _joined(parts)


def cifar_of_bytes(files: Mapping[str, bytes], path: str) -> PixelArrays:
    """Read batches of the binary archive: a byte for the label, then those of an image."""
    parts = []
    for name, content in files.items():
        if not content or len(content) % (_ROW + 1):
            raise damaged(f"{path}/{name}")
        rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, _ROW + 1)
        parts.append(PixelArrays(_from_planes(rows[:, 1:]), rows[:, 0].astype(np.int64)))
    return _joined(parts)


def _from_planes(rows: Any) -> NDArray[np.uint8]:
    if rows.dtype != np.uint8:
        raise TypeError(rows.dtype)
    return np.asarray(rows.reshape(-1, _CHANNELS, _SIDE, _SIDE).transpose(0, 2, 3, 1))


def _joined(parts: Sequence[PixelArrays]) -> PixelArrays:
    return PixelArrays(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def idx_pair(files: Mapping[str, bytes], path: str) -> PixelArrays:
    """Read a file of images and one of labels, packed by gzip or not."""
    images, labels = (
        _idx(content, f"{path}/{name}", num_axes)
        for (name, content), num_axes in zip(files.items(), (3, 1), strict=True)
    )
    return PixelArrays(images[..., None], labels.astype(np.int64))


def _idx(content: bytes, path: str, num_axes: int) -> NDArray[np.uint8]:
    """Read an array of bytes: two zeros, the type, the number of axes, and the size of each."""
    if path.endswith(".gz"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            raise damaged(path) from None
    begin = 4 + 4 * num_axes
    if content[:4] != bytes([0, 0, _IDX_UINT8, num_axes]) or len(content) < begin:
        raise DataError(
            f"{path}: this must be an IDX file of bytes with {num_axes} "
            f"{'axes' if num_axes > 1 else 'axis'}, and is not; fetch it again."
        )
    shape = np.frombuffer(content[4:begin], dtype=">u4").tolist()
    values = np.frombuffer(content, dtype=np.uint8, offset=begin)
    if len(values) != int(np.prod(shape, dtype=object)):
        raise damaged(path)
    return values.reshape(shape)


def arrays_of_numpy(path: str, split: str | None) -> PixelArrays:
    """Read an .npz file: of a split ``x_train`` and ``y_train`` (or ``_test``), or ``x`` and ``y``.

    Images are uint8 of (n, height, width) or (n, height, width, channels).
    """
    import fsspec

    with reading(path), fsspec.open(path, "rb") as file, np.load(file) as arrays:
        x, y = (f"{axis}_{split}" if split else axis for axis in "xy")
        if x not in arrays or y not in arrays:
            raise DataError(
                f"{path}: the file must have the arrays {x} and {y}, and has {', '.join(arrays)}; "
                f"rename them{' or give test_path' * bool(split)}."
            )
        return _checked(arrays[x], arrays[y], path)


def _checked(pixels: Any, labels: Any, path: str) -> PixelArrays:
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (1, 3):
        raise DataError(
            f"{path}: images must be uint8 of (n, height, width) or (n, height, width, 3), got "
            f"{pixels.dtype} of {pixels.shape}; save them so."
        )
    if labels.dtype.kind not in "iu" or labels.size != len(labels):
        raise DataError(
            f"{path}: labels must be one whole number for each image, got {labels.dtype} of "
            f"{labels.shape}; save them so."
        )
    return PixelArrays(pixels, labels.reshape(-1).astype(np.int64))
