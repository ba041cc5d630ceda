"""CIFAR-10 and Fashion-MNIST: every form that they come in gives the same images and labels."""

import gzip
import io
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from scaling_fl.composition.tasks import make_task
from scaling_fl.config import read_config
from scaling_fl.learning.images.stored import StoredImages
from scaling_fl.learning.text.labelled import DataError
from tests.digits import digits, write_idx

RANDOM = np.random.default_rng(5)
IMAGES = RANDOM.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(60) * 7 % 10
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PARTS = {f"data_batch_{n + 1}": slice(10 * n, 10 * n + 10) for n in range(5)}
PARTS["test_batch"] = slice(50, 60)


def planes(part: slice) -> Any:
    return IMAGES[part].transpose(0, 3, 1, 2).reshape(-1, 3072)


def of_python_2(part: slice) -> bytes:
    """Write a batch as Python 2 pickled it, piece by piece: nothing here may write pickles."""
    data = planes(part)
    labels = b"".join(b"K" + bytes([label]) for label in LABELS[part].tolist())
    shape = b"M" + struct.pack("<H", len(data)) + b"M" + struct.pack("<H", 3072) + b"\x86"
    head = (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b"
        b"\x87R(K\x01" + shape + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", data.nbytes)
    )
    return head + data.tobytes() + b"tbU\x06labels](" + labels + b"eu."


def python_folder(root: Path) -> Path:
    inside = root / "cifar-10-batches-py"
    inside.mkdir(parents=True)
    for name, part in PARTS.items():
        (inside / name).write_bytes(of_python_2(part))
    return root


def binary_folder(root: Path) -> Path:
    root.mkdir()
    for name, part in PARTS.items():
        rows = np.concatenate([LABELS[part, None].astype(np.uint8), planes(part)], axis=1)
        (root / f"{name}.bin").write_bytes(rows.tobytes())
    return root


def archive(folder: Path) -> Path:
    path = folder.with_suffix(".tar.gz")
    with tarfile.open(path, "w:gz") as file:
        file.add(folder, arcname="somewhere")
    return path


def numpy_file(path: Path) -> Path:
    np.savez(path, x_train=IMAGES[:50], y_train=LABELS[:50, None], x_test=IMAGES[50:],
             y_test=LABELS[50:, None])  # fmt: skip
    return path


def class_folders(root: Path) -> Path:
    for split, part in (("train", range(50)), ("test", range(50, 60))):
        for name in NAMES:
            (root / split / name).mkdir(parents=True, exist_ok=True)
        for number in part:
            image = Image.fromarray(IMAGES[number])
            image.save(root / split / NAMES[LABELS[number]] / f"{number:02}.png")
    return root


def png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def parquet(path: Path, part: slice) -> Path:
    rows = [
        {"img": {"bytes": png(image), "path": None}, "label": int(label)}
        for image, label in zip(IMAGES[part], LABELS[part], strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


FORMS: dict[str, Callable[[Path], list[Path]]] = {
    "python": lambda folder: [python_folder(folder / "py")],
    "python, packed": lambda folder: [archive(python_folder(folder / "py"))],
    "binary": lambda folder: [binary_folder(folder / "bin")],
    "binary, packed": lambda folder: [archive(binary_folder(folder / "bin"))],
    "numpy": lambda folder: [numpy_file(folder / "cifar.npz")],
    "folders": lambda folder: [class_folders(folder / "png")],
    "folders apart": lambda folder: [
        class_folders(folder / "png") / split for split in ("train", "test")
    ],
    "hub": lambda folder: [
        parquet(folder / "train.parquet", slice(0, 50)),
        parquet(folder / "test.parquet", slice(50, 60)),
    ],
}


def load(places: list[Path], cache: Path, **changes: Any) -> tuple[StoredImages, StoredImages]:
    test = str(places[1]) if len(places) > 1 else None
    places_given = {"train_path": str(places[0]), "test_path": test}
    given = {"task_name": "cifar10", "model": "tiny", "data": {"cache_dir": str(cache)}}
    task = make_task(read_config(given | places_given | changes))
    found = task.load_examples("train"), task.load_examples("test")
    assert isinstance(found[0], StoredImages)
    assert isinstance(found[1], StoredImages)
    return found


def as_set(examples: StoredImages) -> set[tuple[bytes, int]]:
    return {
        (pixels.tobytes(), label)
        for pixels, label in zip(examples.pixels, examples.labels.tolist(), strict=True)
    }


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_the_same_images_and_labels(form: str, tmp_path: Path) -> None:
    for examples, part in zip(
        load(FORMS[form](tmp_path), tmp_path / "cache"), (slice(0, 50), slice(50, 60)), strict=True
    ):
        expected = zip(IMAGES[part], LABELS[part].tolist(), strict=True)
        assert as_set(examples) == {(pixels.tobytes(), label) for pixels, label in expected}


def test_fashion_mnist_is_read_from_its_four_files(tmp_path: Path) -> None:
    folder = write_idx(tmp_path / "fashion", num_train=90, num_test=30)
    train, test = load([folder], tmp_path / "cache", task_name="fashion_mnist")
    images, labels = digits()
    np.testing.assert_array_equal(train.pixels[..., 0], images[:90])
    np.testing.assert_array_equal(test.labels, labels[90:120])


def damage(folder: Path, name: str, content: bytes) -> list[Path]:
    (folder / name).write_bytes(content)
    return [folder]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda f: damage(binary_folder(f / "b"), "data_batch_3.bin", b"\0" * 100), "cut short"),
        (
            lambda f: damage(binary_folder(f / "b"), "data_batch_3.bin", b"\x0b" + b"\0" * 3072),
            r"image 21: a label must be from 0 to 9, got 11",
        ),
        (
            lambda f: damage(python_folder(f / "b") / "cifar-10-batches-py", "data_batch_2", b"cos"
                             b"\nsystem\n(S'true'\ntR."),
            r"data_batch_2: a pickle must hold plain values .* \(it names os.system\)",
        ),
        (
            lambda f: damage(python_folder(f / "b") / "cifar-10-batches-py", "data_batch_2", b"}."),
            "a batch must have data of 3072 bytes",
        ),
        (lambda f: [f], "there must be folders airplane"),
        (lambda f: [parquet(f / "a.parquet", slice(0, 9))], "give test_path"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_with_the_name_of_the_file(
    make: Callable[[Path], list[Path]], said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said) as refused:
        load(make(tmp_path), tmp_path / "cache")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(b"\0\0\x08\x03" + struct.pack(">3I", 2, 8, 8) + b"\1" * 100), "cut short"),
        (gzip.compress(b"\0\0\x0d\x03" + struct.pack(">3I", 2, 8, 8)), "IDX file of bytes"),
        (gzip.compress(b"\0" * 64)[:20], "cut short or damaged"),
        (b"no gzip", "cut short or damaged"),
    ],
    ids=["too long", "of floats", "cut", "not packed"],
)
def test_a_damaged_idx_file_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    folder = write_idx(tmp_path / "fashion", num_train=20, num_test=20)
    name = "train-images-idx3-ubyte.gz"
    with pytest.raises(DataError, match=f"{name}: .*{said}"):
        load(damage(folder, name, content), tmp_path / "cache", task_name="fashion_mnist")


def test_without_a_path_the_folder_of_debian_is_read() -> None:
    task = make_task(read_config({"task_name": "fashion_mnist", "model": "tiny"}))
    if not Path("/usr/share/datasets/fashion-mnist").is_dir():
        with pytest.raises(DataError, match="install Debian's package dataset-fashion-mnist"):
            task.load_examples("train")
    else:
        assert len(task.load_examples("test")) == 10_000
