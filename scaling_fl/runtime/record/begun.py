"""What a job has kept so far, read before anything of it is loaded."""

import re
from contextlib import suppress
from typing import Any

from scaling_fl.runtime.record.manifest import MANIFEST, TornCheckpoint, parse_manifest
from scaling_fl.runtime.storage import NotStored, Storage

_PATH = re.compile(rf"round-(\d{{6,}})/{re.escape(MANIFEST)}")


def newest_identity(storage: Storage) -> dict[str, Any] | None:
    """Read the identity in the newest manifest that is what was written; None: there is none.

    Raises:
        CheckpointMismatch: a later version of the program wrote it.
        StorageError: the storage cannot be read.
    """
    numbers = {path: int(match[1]) for path in storage.names() if (match := _PATH.fullmatch(path))}
    for path, number in sorted(numbers.items(), key=lambda item: item[1], reverse=True):
        with suppress(TornCheckpoint, NotStored, KeyError):
            identity: dict[str, Any] = parse_manifest(storage.read_bytes(path), number)["identity"]
            return identity
    return None
