"""Images are decoded once, by one process; all processes map the same pixels into memory."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from scaling_fl.core.json_text import json_text
from scaling_fl.core.waiting import told_when_slow
from scaling_fl.learning.cache import cache_folder, cached_folder
from scaling_fl.learning.images.decoding import Pixels, square
from scaling_fl.learning.images.pictures import Pictures
from scaling_fl.learning.task import Batch, Indices

_FORMAT_VERSION = 1
_MANIFEST = "manifest.json"
_OF_EACH = ("labels", "marks", "owners", "groups")
_ARRAYS = ("pixels", *_OF_EACH)
_DECODED_AT_ONCE = 256
_BLOCK, _NUM_BLOCKS = 1 << 20, 64
"""A checksum is of so many bytes at so many places of a file: of a short file, of all of it."""


@dataclass(frozen=True, kw_only=True)
class StoredImages:
    """Examples as read-only views of the cache.

    ``pixels`` is uint8 of (n, side, side, channels), ``labels`` int64 of n; ``marks`` (bool, n x
    labels), ``owners`` and ``groups`` (int64 of n) are as in ``Pictures``. ``key`` identifies them.
    """

    pixels: NDArray[np.uint8]
    labels: Indices
    key: str
    source: str
    marks: NDArray[np.bool_] | None = None
    owners: Indices | None = None
    groups: Indices | None = None

    @cached_property
    def lengths(self) -> Indices:
        """All are equally large."""
        return np.ones(len(self), dtype=np.int64)

    @property
    def strata(self) -> Indices:
        return self.labels

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Indices) -> Batch:
        """Copy images: ``pixels`` is uint8 of (examples, side, side, channels).

        ``labels`` is int64 of (examples) or, of images with several labels, (examples, labels).
        """
        labels = self.labels if self.marks is None else self.marks
        tensors = {
            "pixels": torch.from_numpy(self.pixels[indices]),
            "labels": torch.from_numpy(labels[indices].astype(np.int64)),
        }
        return Batch(tensors, indices)


def store(
    load: Callable[[], Pictures],
    *,
    depends_on: Mapping[str, str],
    largest_side: int,
    cache_dir: Path | None = None,
) -> StoredImages:
    """Return the decoded images; ``load`` is called only if the cache does not hold them.

    Square images of one size are kept as they are if their side is at most ``largest_side`` long.
    If not, or if one image has another size, every one is scaled until its shorter side is
    ``largest_side`` long, and cut to the square in its middle.

    ``depends_on`` names all that the result of ``load`` depends on.

    Raises:
        DataError: an image cannot be decoded.
    """
    source = _hashed(dict(depends_on))
    key = _hashed([source, largest_side, _FORMAT_VERSION])
    folder = cache_folder(cache_dir) / "images" / key[:32]

    def build(staging: Path) -> None:
        with told_when_slow("images to be decoded"):
            _write(staging, load(), largest_side)

    cached_folder(folder, is_whole=_is_whole, build=build)
    arrays = {name: np.load(file, mmap_mode="r") for name, file in _files(folder).items()}
    return StoredImages(**arrays, key=key, source=source)


def _write(staging: Path, pictures: Pictures, largest_side: int) -> None:
    height, width, channels = pictures.read(int(pictures.numbers[0])).shape
    own = [height] if height == width <= largest_side else []
    for side in [*own, largest_side]:
        shape = (len(pictures), side, side, channels)
        path = staging / "pixels.npy"
        pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        if _fill(pixels, pictures, scale=side not in own):
            pixels.flush()
            break
    for name in _OF_EACH:
        if (array := getattr(pictures, name)) is not None:
            np.save(staging / f"{name}.npy", array)
    checks = {name: _check_of(file) for name, file in _files(staging).items()}
    (staging / _MANIFEST).write_text(json_text(checks), encoding="utf-8")


def _fill(target: NDArray[np.uint8], pictures: Pictures, *, scale: bool) -> bool:
    """Decode into an array; without ``scale`` stop at an image of another size, and say no."""
    side = target.shape[1]
    for place, pixels in enumerate(_decoded(pictures)):
        if scale:
            pixels = square(pixels, side)
        elif pixels.shape != target.shape[1:]:
            return False
        target[place] = pixels
    return True


def _decoded(pictures: Pictures) -> Iterator[Pixels]:
    """Decode all images in their order, several at a time: Pillow lets other threads go on."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(pictures), _DECODED_AT_ONCE):
            numbers = pictures.numbers[first : first + _DECODED_AT_ONCE]
            yield from pool.map(pictures.read, numbers.tolist())


def _files(folder: Path) -> dict[str, Path]:
    found = {name: folder / f"{name}.npy" for name in _ARRAYS}
    return {name: file for name, file in found.items() if file.is_file()}


def _is_whole(folder: Path) -> bool:
    """Check sizes and checksums, so that nobody trains on a cut or damaged file."""
    try:
        checks = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return bool(checks == {name: _check_of(file) for name, file in _files(folder).items()})
    except (OSError, ValueError):
        return False


def _check_of(file: Path) -> list[Any]:
    """Return the size and a checksum of a file, in bounded time however large it is."""
    size = file.stat().st_size
    step = max(_BLOCK, size // _NUM_BLOCKS)
    digest = xxhash.xxh3_128()
    with file.open("rb") as content:
        for begin in range(0, size, step):
            content.seek(begin)
            digest.update(content.read(_BLOCK))
    return [size, digest.hexdigest()]


def _hashed(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
