import errno
import os
import re
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

from scaling_fl.runtime.storage import (
    LocalStorage,
    NotStored,
    RemoteStorage,
    StorageError,
    open_storage,
    remote,
)
from scaling_fl.runtime.storage.errors import explain, without_credentials
from tests.servers import free_port


def is_one_sentence(text: str) -> bool:
    return "\n" not in text and text.endswith(".") and not re.search(r"\.\s", text)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_every_storage_gives_back_what_was_put(any_url: str, tmp_path: Path) -> None:
    storage = open_storage(any_url)
    assert storage.names() == []
    data = os.urandom(300_000) + b"."  # the emulator of gs:// drops a \r at the end
    storage.put(write(tmp_path / "source", data), "a/file")
    storage.write_bytes("small", b"1")
    storage.write_bytes("small", b"22")
    assert storage.names() == ["a/file", "small"]
    assert storage.read_bytes("small") == b"22"
    storage.fetch("a/file", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == data
    with storage.local_copy("a/file") as path:
        assert path.read_bytes() == data
    assert open_storage(any_url).names() == ["a/file", "small"]


def test_a_folder_of_a_storage_is_a_storage(any_url: str) -> None:
    storage = open_storage(any_url)
    inner = storage.inside("a").inside("b")
    inner.write_bytes("file", b"1")
    assert storage.names() == ["a/b/file"]
    assert (inner.names(), inner.url) == (["file"], f"{storage.url}/a/b")
    assert open_storage(inner.url).read_bytes("file") == b"1"


def test_every_storage_deletes_and_forgives_what_is_not_there(any_url: str) -> None:
    storage = open_storage(any_url)
    for name in ("a/1", "a/2", "b"):
        storage.write_bytes(name, b"x")
    storage.delete(["a/2", "nothing", "a/1"])
    assert storage.names() == ["b"]


def test_every_storage_tells_that_a_name_is_not_stored(any_url: str, tmp_path: Path) -> None:
    storage = open_storage(any_url)
    storage.write_bytes("other", b"x")
    target = tmp_path / "target"
    with pytest.raises(NotStored, match="has no file missing") as caught:
        storage.fetch("missing", target)
    assert is_one_sentence(str(caught.value))
    assert not target.exists()
    with pytest.raises(NotStored):
        storage.read_bytes("missing")
    with pytest.raises(NotStored), storage.local_copy("missing"):
        pass


def test_every_storage_sees_what_another_client_has_written(any_url: str) -> None:
    reader, writer = open_storage(any_url), open_storage(any_url)
    assert reader.names() == []
    writer.write_bytes("new", b"x")
    assert reader.names() == ["new"]


def test_publishing_keeps_the_order_and_leaves_no_staging(any_url: str) -> None:
    storage = open_storage(any_url)
    with storage.staging() as staging:
        for name in ("z", "a"):
            write(staging / name, name.encode())
        assert storage.names() == []
        storage.publish(staging, "folder", ["z", "a"])
    assert not staging.exists()
    assert storage.names() == ["folder/a", "folder/z"]
    if storage.is_local:
        assert os.listdir(storage.url) == ["folder"]


def test_a_file_that_fails_to_arrive_leaves_the_one_before(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "job")
    storage.write_bytes("file", b"before")
    with pytest.raises(StorageError, match="could not write file"):
        storage.put(tmp_path / "missing", "file")
    assert storage.read_bytes("file") == b"before"
    assert os.listdir(tmp_path / "job") == ["file"]


def test_sweeping_removes_what_the_dead_left_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    code = (
        "import os, sys, pathlib; from scaling_fl.runtime.storage.base import partial_name\n"
        "p = pathlib.Path(sys.argv[1]); (p / partial_name()).mkdir(parents=True)\n"
        "(p / partial_name()).write_text('x'); print(os.getpid())"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, capture_output=True)
    storage = LocalStorage(folder)
    storage.write_bytes("mine", b"x")
    (folder / ".scaling_fl-something").write_text("not ours to judge")
    for name in ("round-1", "empty", "round-2/full"):
        (folder / name).mkdir(parents=True)
    assert storage.names() == [".scaling_fl-something", "mine"]
    with storage.staging() as staging:
        storage.sweep(re.compile("round-.*"))
        assert staging.exists()
        left = [".scaling_fl-something", "mine", "empty", "round-2", staging.name]
        assert sorted(os.listdir(folder)) == sorted(left)


def test_a_file_in_the_place_of_a_folder_is_named_in_one_sentence(tmp_path: Path) -> None:
    write(tmp_path / "file", b"")
    with pytest.raises(StorageError, match="is a file, not a folder") as caught:
        LocalStorage(tmp_path / "file" / "job").write_bytes("x", b"")
    assert is_one_sentence(str(caught.value))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space is left"),
        (errno.EDQUOT, "no space is left"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "the disk failed"),
        (errno.ENOTCONN, "the file system is gone"),
        (errno.ESTALE, "the file system is gone"),
    ],
)
def test_errors_of_the_system_become_one_sentence(number: int, words: str) -> None:
    error = explain(OSError(number, os.strerror(number)), "write x to y")
    assert words in str(error)
    assert is_one_sentence(str(error))


@pytest.mark.servers
@pytest.mark.parametrize("kind", ["s3_url", "gcs_url"])
def test_a_missing_bucket_is_named_at_once(kind: str, request: pytest.FixtureRequest) -> None:
    storage = open_storage(request.getfixturevalue(kind).replace("//bucket", "//missing-bucket"))
    started = time.monotonic()
    for action in (storage.names, lambda: storage.write_bytes("x", b"")):
        with pytest.raises(StorageError, match="the bucket does not exist") as caught:
            action()
        assert storage.url in str(caught.value)
        assert is_one_sentence(str(caught.value))
    assert time.monotonic() - started < 2 * remote.RETRY_SECONDS  # no action was tried again


@pytest.mark.servers
def test_missing_credentials_are_named(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(StorageError, match="no credentials were found") as caught:
        open_storage(f"{s3_url}/job").names()
    assert is_one_sentence(str(caught.value))


def test_an_endpoint_that_is_down_is_named_and_shows_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:hunter2@127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKhunter2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setattr("scaling_fl.runtime.storage.remote.RETRY_SECONDS", 1.0)
    with pytest.raises(StorageError, match="cannot be reached") as caught:
        open_storage("s3://bucket/job").write_bytes("x", b"")
    assert is_one_sentence(str(caught.value))
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_failure_that_passes_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = RemoteStorage("memory://flaky/job")
    storage.write_bytes("x", b"1")
    failures = [ConnectionResetError(), TimeoutError()]
    read = storage.fs.cat_file

    def flaky(path: str) -> Any:
        if failures:
            raise failures.pop()
        return read(path)

    monkeypatch.setattr(storage.fs, "cat_file", flaky)
    assert storage.read_bytes("x") == b"1"
    assert not failures


def test_a_failure_that_stays_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = RemoteStorage("memory://once/job")
    calls = []

    def refused(path: str) -> None:
        calls.append(path)
        raise PermissionError("".join(["hunt", "er2"]))

    monkeypatch.setattr(storage.fs, "cat_file", refused)
    with pytest.raises(StorageError, match="permission denied") as caught:
        storage.read_bytes("x")
    assert len(calls) == 1
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://key:sec/ret@bucket/path", "s3://bucket/path"),
        ("s3://key@bucket/path", "s3://bucket/path"),
        ("s3://bucket/path?secret=1", "s3://bucket/path"),
        ("gs://bucket/mail@home", "gs://bucket/mail@home"),
        ("folder/a@b", "folder/a@b"),
    ],
)
def test_an_address_is_shown_without_credentials(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/path", "gs://bucket/x?token=secret"])
def test_an_address_with_credentials_is_refused_without_showing_them(url: str) -> None:
    with pytest.raises(StorageError, match="must contain neither credentials") as caught:
        open_storage(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://", "nothing://bucket/path"])
def test_an_address_that_names_no_place_is_refused(url: str) -> None:
    with pytest.raises(StorageError) as caught:
        open_storage(url)
    assert is_one_sentence(str(caught.value))


@pytest.mark.servers
def test_only_one_of_two_creates_an_object(s3_url: str) -> None:
    storage = RemoteStorage(f"{s3_url}/job")
    assert storage.create_bytes("x", b"first")
    assert not storage.create_bytes("x", b"second")
    assert storage.read_bytes("x") == b"first"


UPLOAD = """
import sys
from pathlib import Path
from scaling_fl.runtime.storage import open_storage
storage = open_storage(sys.argv[1])
print("ready", flush=True)
storage.put(Path(sys.argv[2]), "large")
"""


@pytest.mark.servers
def test_an_upload_cut_in_the_middle_is_invisible_and_swept(s3_url: str, tmp_path: Path) -> None:
    url = f"{s3_url}/job"
    storage = RemoteStorage(url)
    storage.write_bytes("large", b"before")
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(200 * 2**20)
    command = [sys.executable, "-c", UPLOAD, url, str(large)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        bucket = storage.root.partition("/")[0]
        while not storage.fs.list_multipart_uploads(bucket):
            time.sleep(0.02)
        time.sleep(0.2)
        child.kill()
    assert storage.read_bytes("large") == b"before"
    other = {"Bucket": bucket, "Key": "other/file"}
    storage.fs.call_s3("create_multipart_upload", **other)
    assert len(storage.fs.list_multipart_uploads(bucket)) == 2
    storage.sweep(re.compile("round-.*"))
    assert [item["Key"] for item in storage.fs.list_multipart_uploads(bucket)] == ["other/file"]
    assert storage.names() == ["large"]
