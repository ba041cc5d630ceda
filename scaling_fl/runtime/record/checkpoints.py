"""Checkpoints: a folder per round, which exists when its manifest exists, and is then whole.

``round-000012/{state.safetensors, optimiser.safetensors, config.json, manifest.json}``. The files
are staged, flushed and hashed before the first of them is published, and the manifest, which has
their sizes and hashes, is published last. Retention deletes the manifest first. So at any moment
an observer sees no manifest or a whole checkpoint, whoever is killed when.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from scaling_fl.core.errors import UserError
from scaling_fl.core.json_text import json_text
from scaling_fl.core.vector import Layout
from scaling_fl.runtime.record.chain import chain_digest
from scaling_fl.runtime.record.journal import upload_journal
from scaling_fl.runtime.record.manifest import (
    CONFIG,
    MANIFEST,
    OPTIMISER,
    STATE,
    CheckpointMismatch,
    TornCheckpoint,
    check_file,
    check_matches,
    parse_manifest,
    write_manifest,
)
from scaling_fl.runtime.record.tensor_files import (
    check_finite,
    check_vector,
    read_tensors,
    read_vector,
    write_tensors,
    write_vector,
)
from scaling_fl.runtime.storage import NotStored, Storage, StorageError
from scaling_fl.runtime.storage.errors import NotAFile, explain

__all__ = ["Checkpoint", "CheckpointError", "CheckpointMismatch", "Checkpoints", "chain_digest"]

_FOLDER = re.compile(r"round-(\d{6,})")
_ORDER = (STATE, OPTIMISER, CONFIG, MANIFEST)


class CheckpointError(UserError):
    """A checkpoint could not be saved, or there is none to load. The message is one sentence."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint; ``vector`` is fp32, one-dimensional and on the CPU."""

    round: int
    vector: Tensor
    layout: Layout
    optimiser: dict[str, Tensor]
    digest: str
    config: dict[str, Any]
    manifest: dict[str, Any]


_Expected = tuple[Layout, dict[str, Any]] | None
_Check = Callable[[Checkpoint], None]


class Checkpoints:
    """The checkpoints of one job in its storage; only the owner of the storage's claim saves."""

    def __init__(
        self, storage: Storage, keep_last: int | None, note: Callable[[str], None]
    ) -> None:
        if keep_last is not None and keep_last < 1:
            raise ValueError(f"keep_last must be at least 1 or None, got {keep_last}.")
        self._storage, self._keep_last, self._note = storage, keep_last, note
        self._torn: set[int] = set()
        self._said: set[str] = set()

    def rounds(self) -> list[int]:
        """List the rounds that have a manifest, in ascending order."""
        return sorted(number for number, files in self._folders().items() if MANIFEST in files)

    def save(
        self,
        *,
        round: int,
        vector: Tensor,
        layout: Layout,
        optimiser: dict[str, Tensor],
        digest: str,
        previous_digest: str,
        cohort: list[int],
        config: dict[str, Any],
        identity: dict[str, Any],
        progress: dict[str, Any] | None = None,
        journal: Path | None = None,
    ) -> str:
        """Save a round, apply the retention, and return where it is.

        ``vector`` is fp32 on the CPU with ``layout.size`` elements. ``progress`` comes back in
        the loaded manifest. The journal is copied beside the checkpoints of a remote storage.

        Raises:
            CheckpointError: the storage is full, refuses or cannot be reached.
        """
        check_vector(vector, layout)
        head = {
            "round": round,
            "digest": digest,
            "previous_digest": previous_digest,
            "cohort": cohort,
            "identity": identity,
            "progress": progress or {},
            "layout": layout.to_json(),
            "dtype": "float32",
        }
        folder = _name(round)
        with self._explained(folder):
            if self._storage.is_local:  # what dead runs left may be what fills the disk
                self._tidy()
            with self._storage.staging() as staging:
                write_vector(staging / STATE, vector, layout)
                write_tensors(staging / OPTIMISER, optimiser)
                (staging / CONFIG).write_text(json_text(config, indent=1))
                write_manifest(staging, head)
                if journal and not self._storage.is_local:
                    upload_journal(journal, self._storage, staging)
                # An earlier checkpoint of this round must not seem whole while it is replaced.
                self._storage.delete([f"{folder}/{MANIFEST}"])
                self._storage.publish(staging, folder, _ORDER)
        if not self._storage.is_local:  # a store that is away is waited for only once
            self._tidy()
        self._noted(self._retain)
        return f"{self._storage.url}/{folder}"

    def load_latest(
        self, layout: Layout, identity: dict[str, Any], check: _Check = lambda found: None
    ) -> Checkpoint | None:
        """Load the newest whole checkpoint, or None where none was ever saved.

        One that is not whole, also by ``check`` (TornCheckpoint), is skipped with a note.

        Raises:
            CheckpointMismatch: it is of another model, task or layout.
            CheckpointError: there are checkpoints, and none of them is whole.
            StorageError: the storage cannot be read, which says nothing about the checkpoints.
        """
        return self._newest((layout, identity), check)

    def load(self, number: int | None = None) -> Checkpoint:
        """Load a round, or the newest whole one, as what its own manifest says that it is.

        Raises:
            CheckpointError: there is no such round, or no whole one.
            CheckpointMismatch: a later version of the program wrote it.
            StorageError: the storage cannot be read.
        """
        if number is None:
            found = self._newest(None, lambda found: None)
            if found is None:
                raise CheckpointError(
                    f"{self._storage.url} holds no whole checkpoint (round-000001, ...); give the "
                    "checkpoint folder of a job that has finished a round."
                )
            return found
        try:
            return self._load(number, None)
        except TornCheckpoint as torn:
            raise CheckpointError(
                f"{self._storage.url}/{_name(number)} is not a whole checkpoint ({torn}); give "
                "another round, or the folder above it for the newest whole one."
            ) from None

    def _newest(self, expected: _Expected, check: _Check) -> Checkpoint | None:
        torn: dict[int, str] = {}
        for number in reversed(self.rounds()):
            try:
                found = self._load(number, expected)
                check(found)
            except TornCheckpoint as reason:
                torn[number] = str(reason)
                continue
            for skipped, text in torn.items():
                self._note(
                    f"the checkpoint {self._storage.url}/{_name(skipped)} is not whole ({text}); "
                    "it is skipped, and removed at the next save."
                )
            self._torn |= torn.keys()
            return found
        if torn:
            raise self._none_whole(torn)
        return None

    def _none_whole(self, torn: Mapping[int, str]) -> CheckpointError:
        shown = "; ".join(f"{_name(number)}: {text}" for number, text in [*torn.items()][:3])
        more = f"; and {len(torn) - 3} more" * (len(torn) > 3)
        return CheckpointError(
            f"{self._storage.url} holds no whole checkpoint ({shown}{more}); nothing was removed: "
            "put a copy of one back, or give another folder (checkpoints_dir)."
        )

    def _load(self, number: int, expected: _Expected) -> Checkpoint:
        """Load a round, holding it against the layout and identity that are expected, if any."""
        folder = _name(number)
        try:
            manifest = parse_manifest(self._storage.read_bytes(f"{folder}/{MANIFEST}"), number)
            if expected:
                check_matches(manifest, *expected, f"{self._storage.url}/{folder}")
            layout = Layout.from_json(manifest["layout"])
            with self._checked(folder, STATE, manifest) as path:
                vector = read_vector(path, layout)
            with self._checked(folder, OPTIMISER, manifest) as path:
                optimiser = read_tensors(path)
            check_finite({"the global vector": vector, **optimiser})
            with self._checked(folder, CONFIG, manifest) as path:
                config = json.loads(path.read_bytes())
        except NotAFile:
            raise TornCheckpoint("a folder, a pipe or a device is in the place of a file") from None
        except NotStored:
            raise TornCheckpoint("a file is missing") from None
        except SafetensorError as error:
            raise TornCheckpoint(f"its tensors cannot be read: {error}") from None
        except OSError as error:
            raise explain(error, f"read {folder} in {self._storage.url}") from None
        except (ValueError, RecursionError):
            raise TornCheckpoint(f"its {CONFIG} cannot be read") from None
        if not isinstance(config, dict):
            raise TornCheckpoint(f"its {CONFIG} holds no settings")
        digest = manifest["digest"]
        return Checkpoint(number, vector, layout, optimiser, digest, config, manifest)

    @contextmanager
    def _checked(self, folder: str, name: str, manifest: dict[str, Any]) -> Iterator[Path]:
        with self._storage.local_copy(f"{folder}/{name}") as path:
            check_file(path, name, manifest["files"][name])
            yield path

    def _folders(self) -> dict[int, set[str]]:
        """Group our own files by round; everything else in the storage is somebody else's."""
        folders: dict[int, set[str]] = {}
        for path in self._storage.names():
            folder, _, name = path.partition("/")
            match = _FOLDER.fullmatch(folder)
            if match and name in _ORDER and folder == _name(int(match[1])):
                folders.setdefault(int(match[1]), set()).add(name)
        return folders

    def _tidy(self) -> None:
        self._noted(partial(self._storage.sweep, _FOLDER))
        self._noted(self._remove_torn)

    def _remove_torn(self) -> None:
        folders = self._folders()
        torn = {number for number, files in folders.items() if MANIFEST not in files}
        for number in sorted(torn | (self._torn & folders.keys())):
            self._delete(number)
        self._torn.clear()

    def _retain(self) -> None:
        if self._keep_last is not None:
            for number in self.rounds()[: -self._keep_last]:
                self._delete(number)

    def _delete(self, number: int) -> None:
        self._storage.delete(f"{_name(number)}/{name}" for name in reversed(_ORDER))

    def _noted(self, action: Callable[[], None]) -> None:
        # What cannot be removed is no reason to lose a checkpoint.
        try:
            action()
        except StorageError as error:
            if str(error) not in self._said:
                self._said.add(str(error))
                self._note(str(error))

    @contextmanager
    def _explained(self, folder: str) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError) as error:
            # The storage explains its own errors; all others come from staging.
            reason = explain(error, f"prepare {folder} in {self._storage.staging_parent()}")
            raise CheckpointError(
                f"the checkpoint {folder} was not saved, those before it are intact: {reason}"
            ) from None


def _name(number: int) -> str:
    return f"round-{number:06d}"
