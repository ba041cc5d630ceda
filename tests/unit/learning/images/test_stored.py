"""Images are decoded once: sizes, the cache, and damage to it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from scaling_fl.learning.images.pictures import Pictures
from scaling_fl.learning.images.stored import StoredImages, store

RANDOM = np.random.default_rng(0)


def pictures(*shapes: tuple[int, ...]) -> tuple[Pictures, list[int]]:
    """Make images of some shapes, and a list of those that were decoded."""
    images = [RANDOM.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    decoded: list[int] = []

    def read(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        decoded.append(number)
        return images[number]

    return Pictures.of(read, np.arange(len(shapes)) % 2), decoded


def stored(found: Pictures, cache: Path, name: str = "a") -> StoredImages:
    return store(lambda: found, depends_on={"source": name}, largest_side=16, cache_dir=cache)


def test_square_images_of_one_size_are_kept_bit_for_bit(tmp_path: Path) -> None:
    found, decoded = pictures(*[(8, 8, 1)] * 300)
    examples = stored(found, tmp_path)
    assert examples.pixels.shape == (300, 8, 8, 1)
    chosen = np.array([299, 0, 7])
    batch = examples.batch(chosen)
    for row, number in enumerate(chosen.tolist()):
        np.testing.assert_array_equal(batch.tensors["pixels"][row], found.read(number))
    assert batch.tensors["labels"].tolist() == [1, 0, 1]
    assert len(decoded) == 1 + 300 + 3
    again = stored(found, tmp_path)
    assert len(decoded) == 304, "the second time nothing is decoded"
    np.testing.assert_array_equal(again.pixels, examples.pixels)


@pytest.mark.parametrize("shapes", [[(8, 8, 3), (9, 9, 3)], [(20, 20, 3)] * 2, [(8, 12, 3)] * 2])
def test_other_images_become_squares_of_the_largest_side(
    shapes: list[tuple[int, ...]], tmp_path: Path
) -> None:
    examples = stored(pictures(*shapes)[0], tmp_path)
    assert examples.pixels.shape == (2, 16, 16, 3)


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    found, decoded = pictures(*[(8, 8, 3)] * 5)
    stored(found, tmp_path)
    (file,) = tmp_path.rglob("pixels.npy")
    whole = file.read_bytes()
    for damaged in (whole[:-1], bytes([*whole[:-9], whole[-9] ^ 1, *whole[-8:]])):
        decoded.clear()
        file.write_bytes(damaged)
        stored(found, tmp_path)
        assert file.read_bytes() == whole
        assert decoded


def test_marks_and_owners_are_kept(tmp_path: Path) -> None:
    found, _ = pictures(*[(8, 8, 3)] * 4)
    marks = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]], dtype=np.bool_)
    owners = np.array([3, 1, 1, 0])
    several = Pictures(**{**vars(found), "marks": marks, "owners": owners})
    examples = stored(several.take(np.array([3, 1])), tmp_path)
    assert examples.batch(np.array([0, 1])).tensors["labels"].tolist() == [[1, 1, 1], [0, 0, 0]]
    assert examples.batch(np.array([0])).tensors["labels"].dtype == torch.int64
    assert examples.owners is not None
    assert examples.owners.tolist() == [0, 1]
