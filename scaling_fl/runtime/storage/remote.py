"""An object store as a storage, by fsspec: s3://, gs:// and memory://.

Files are prepared locally and sent by ``put_file``; the object appears when the upload is complete.
``fsspec.open`` would leave a truncated object when the writer fails.
"""

import errno
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from scaling_fl.core.object_stores import limit_object_store
from scaling_fl.core.waiting import (
    SAY_AFTER_SECONDS,
    WRITE_BYTES,
    WRITE_SECONDS,
    bounded,
    told_when_slow,
)
from scaling_fl.runtime.storage.base import Storage, partial_name, remove_if_abandoned
from scaling_fl.runtime.storage.errors import (
    BUCKET,
    NotStored,
    StorageError,
    diagnose,
    explain,
    explain_as,
    without_credentials,
)

T = TypeVar("T")

_RETRY_DELAYS = (0.2, 0.5, 1.0, 2.0, 4.0)
RETRY_SECONDS = 10.0
_USUAL_BYTES = 5_000_000  # a second; a file that takes longer is told


class RemoteStorage(Storage):
    """An object store; an operation with a transient error is repeated for about 10 s."""

    is_local = False

    def __init__(self, url: str) -> None:
        self.url = without_credentials(url).rstrip("/")
        if self.url != url.rstrip("/"):
            raise StorageError(
                f"the address of {self.url} must contain neither credentials nor options; set them"
                " in the environment."
            )
        self.fs, root = self._try(f"open {self.url}", lambda: _open_filesystem(url))
        self.root = root.rstrip("/")
        if not self.root:
            raise StorageError(f"the address {url} must name a bucket, such as s3://bucket/path.")

    def inside(self, folder: str) -> "RemoteStorage":
        inner = copy(self)
        inner.url, inner.root = f"{self.url}/{folder}", f"{self.root}/{folder}"
        return inner

    def names(self) -> list[str]:
        found: list[str] = self._try(f"list {self.url}", lambda: self.fs.find(self.root))
        prefix = f"{self.root}/"
        return sorted(name.removeprefix(prefix) for name in found if name.startswith(prefix))

    def read_bytes(self, name: str) -> bytes:
        data: bytes = self._read(name, lambda: self.fs.cat_file(self._path(name)))
        return data

    def write_bytes(self, name: str, data: bytes) -> None:
        self._write(name, len(data), lambda: self.fs.pipe_file(self._path(name), data))

    def create_bytes(self, name: str, data: bytes) -> bool:
        """Write a small file unless the name exists; return whether it was written.

        Some stores ignore the condition and overwrite, so the caller must read the file again.
        """

        def create() -> bool:
            try:
                self.fs.pipe_file(self._path(name), data, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno != errno.ENOSYS:
                    raise
                self.fs.pipe_file(self._path(name), data)
            return True

        return self._write(name, len(data), create)

    def fetch(self, name: str, local_path: Path) -> None:
        unfinished = local_path.parent / partial_name()
        try:
            self._read(name, lambda: self.fs.get_file(self._path(name), str(unfinished)))
            os.replace(unfinished, local_path)
        finally:
            unfinished.unlink(missing_ok=True)

    @contextmanager
    def local_copy(self, name: str) -> Iterator[Path]:
        with self.staging() as folder:
            path = folder / name.rpartition("/")[2]
            self.fetch(name, path)
            yield path

    def put(self, local_path: Path, name: str) -> None:
        def send() -> None:
            self.fs.put_file(str(local_path), self._path(name))

        self._write(name, local_path.stat().st_size, send)

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            self._try(f"delete {name} in {self.url}", partial(self._remove, self._path(name)))

    def _remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self.fs.rm_file(path)

    def staging_parent(self) -> Path:
        return Path(tempfile.gettempdir())

    def publish(self, staging: Path, folder: str, order: Sequence[str]) -> None:
        for name in order:
            self.put(staging / name, f"{folder}/{name}")

    def sweep(self, folders: re.Pattern[str]) -> None:
        for path in self.staging_parent().glob(".scaling_fl-partial-*"):
            with suppress(OSError):
                remove_if_abandoned(path)
        if hasattr(self.fs, "abort_mpu"):
            self._try(f"remove unfinished uploads in {self.url}", self._abort_uploads)

    def _abort_uploads(self) -> None:
        # fs.clear_multipart_uploads would also abort the uploads of other users of the bucket.
        bucket, _, key = self.root.partition("/")
        page = {"Bucket": bucket, "Prefix": f"{key}/" if key else ""}
        for upload in self.fs.call_s3("list_multipart_uploads", **page).get("Uploads", []):
            with suppress(FileNotFoundError):
                self.fs.abort_mpu(bucket, upload["Key"], upload["UploadId"])

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def _read(self, name: str, action: Callable[[], T]) -> T:
        def read() -> T:
            try:
                return action()
            except FileNotFoundError as error:
                if diagnose(error) is BUCKET:
                    raise
                raise NotStored(f"{self.url} has no file {name}; check the address.") from None

        return self._try(f"read {name} in {self.url}", read)

    def _write(self, name: str, num_bytes: int, action: Callable[[], T]) -> T:
        """Run an action that sends bytes, for which the clients of the stores have no limit."""
        seconds = WRITE_SECONDS + num_bytes / WRITE_BYTES
        return self._try(
            f"write {name} to {self.url}", lambda: bounded(action, seconds=seconds), num_bytes
        )

    def _try(self, doing: str, action: Callable[[], T], num_bytes: int = 0) -> T:
        """Run an action; after a transient error, run it again after a pause."""
        started = time.monotonic()
        delays = iter(_RETRY_DELAYS)
        expected = SAY_AFTER_SECONDS + num_bytes / _USUAL_BYTES
        while True:
            try:
                with told_when_slow(f"the storage, to {doing}", after_seconds=expected):
                    return action()
            except Exception as error:
                delay = next(delays, RETRY_SECONDS)
                spent = time.monotonic() - started
                if not diagnose(error).is_transient or spent + delay > RETRY_SECONDS:
                    # From None, because the texts of the clients may contain keys and addresses.
                    raise _explain_remote(error, doing) from None
            time.sleep(delay)


def _open_filesystem(url: str) -> tuple[Any, str]:
    """Open the file system of an address by fsspec; return it with the path inside."""
    import fsspec  # late, because most commands need no object store

    scheme = url.partition("://")[0]
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    limit_object_store(url)
    if scheme in ("gs", "gcs") and os.environ.get("STORAGE_EMULATOR_HOST"):
        # Otherwise gcsfs looks for credentials, and tries gRPC for up to a minute.
        options["token"] = "anon"
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    fs, root = fsspec.core.url_to_fs(url, **options)
    return fs, root


def _explain_remote(error: Exception, doing: str) -> StorageError:
    # Object stores have no folders: if a list or a write finds nothing, the bucket is missing.
    if isinstance(error, FileNotFoundError) and error.errno is None:
        return error if isinstance(error, StorageError) else explain_as(BUCKET, doing)
    return explain(error, doing)
