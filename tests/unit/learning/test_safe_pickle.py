"""Pickles are read as data: whatever they ask to be called is refused, and nothing runs."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from scaling_fl.learning.safe_pickle import load_plain, load_tensors
from scaling_fl.learning.text.labelled import DataError
from tests.torch_files import write_tensors

# As Python 2 and NumPy 1 wrote {"data": array([[1, 2]], dtype=uint8), "labels": [7]}.
OF_PYTHON_2 = (
    b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
    b"q\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x01K\x02\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87R"
    b"q\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\x01\x02tbU\x06labels"
    b"q\x08]q\x09K\x07au."
)


def test_a_pickle_of_python_2_is_read() -> None:
    found = load_plain(io.BytesIO(OF_PYTHON_2), "a", encoding="bytes")
    assert found[b"labels"] == [7]
    np.testing.assert_array_equal(found[b"data"], np.array([[1, 2]], dtype=np.uint8))


def test_records_in_a_file_of_numpy_are_read(tmp_path: Path) -> None:
    records = np.empty(2, dtype=object)
    records[:] = [{"version": 1}, {"words": ["a"], "boxes": np.eye(2), "n": np.float64(0.5)}]
    np.save(tmp_path / "records.npy", records)
    with (tmp_path / "records.npy").open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        found = load_plain(file, "a")
    assert found[1]["n"] == 0.5
    np.testing.assert_array_equal(found[1]["boxes"], np.eye(2))


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'touch ran'\ntR.",
        b'cbuiltins\neval\n(S\'open("ran", "w")\'\ntR.',
        b'cnumpy.testing._private.utils\nrunstring\n(S\'open("ran","w")\'\n}tR.',
        b"c_codecs\nencode\n(S'YQ=='\nS'base64'\ntR.",
        b"\x80\x02cnumpy.core.multiarray\nfromfile\n.",
        OF_PYTHON_2[:-9],
        b"",
    ],
)
def test_anything_else_is_refused_with_the_name_of_the_file(content: bytes, tmp_path: Path) -> None:
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        with pytest.raises(DataError, match=r"^batch: a pickle must hold plain values"):
            load_plain(io.BytesIO(content), "batch", encoding="bytes")
    finally:
        os.chdir(before)
    assert list(tmp_path.iterdir()) == []


class Runs:
    """What leaves a file where it is read by a reader that does as it is told."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch ran",)


@pytest.mark.parametrize("content", [{"a": Runs()}, {"a": 7}, {"a": {"b": torch.ones(1)}}])
def test_a_file_of_torch_holds_tensors_alone(
    content: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "model.bin"
    write_tensors(content, file)
    with pytest.raises(DataError, match="must be a whole state dict of torch"):
        load_tensors(file)
    assert list(tmp_path.iterdir()) == [file]


def test_tensors_are_read_from_a_whole_file_of_torch(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    write_tensors({"a": torch.arange(5)}, file)
    assert load_tensors(file)["a"].tolist() == [0, 1, 2, 3, 4]
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(DataError, match="must be a whole state dict of torch"):
        load_tensors(file)
