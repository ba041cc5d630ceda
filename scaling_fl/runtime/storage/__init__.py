"""The storage of checkpoints: a local folder by ``os`` calls, or an object store by fsspec."""

from pathlib import Path

from scaling_fl.runtime.storage.base import Storage
from scaling_fl.runtime.storage.errors import NotStored, StorageError
from scaling_fl.runtime.storage.local import LocalStorage
from scaling_fl.runtime.storage.remote import RemoteStorage

__all__ = ["LocalStorage", "NotStored", "RemoteStorage", "Storage", "StorageError", "open_storage"]


def open_storage(url: str | Path) -> Storage:
    """Open the storage at a local path or at an address such as ``s3://bucket/path``.

    Raises:
        StorageError: the address is not valid, contains credentials, or needs a missing package.
    """
    text = str(url)
    if "://" not in text:
        return LocalStorage(Path(text).expanduser())
    if text.startswith("file://"):
        return LocalStorage(Path(text.removeprefix("file://")))
    return RemoteStorage(text)
