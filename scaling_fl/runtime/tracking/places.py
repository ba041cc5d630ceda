"""Where a job keeps what it records, and the states that runs have saved."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from scaling_fl.core.errors import UserError
from scaling_fl.runtime.record.checkpoints import Checkpoint, Checkpoints
from scaling_fl.runtime.storage import open_storage
from scaling_fl.runtime.storage.base import explained
from scaling_fl.runtime.tracking.run_database import MONGO
from scaling_fl.runtime.tracking.runs import is_run_folder, locate
from scaling_fl.runtime.tracking.sources import open_run

Note = Callable[[str], None]


class JobPlaces(TypedDict):
    """Where worker 0 keeps what it records."""

    checkpoints: str
    journal: str


@dataclass(frozen=True)
class Saved:
    """A whole checkpoint, hashes checked, and where it is."""

    where: str
    checkpoint: Checkpoint

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What gives the vector its meaning: the model, the labels, the hash of frozen weights."""
        return dict(self.checkpoint.manifest["identity"])

    @property
    def label_names(self) -> list[str]:
        """Return the labels that the state tells apart; none if its task is no classification."""
        return list(self.fingerprint.get("labels", ()))

    @property
    def num_threads(self) -> int | None:
        """Threads per worker of the run, which the last bits of its results depend on."""
        threads = self.checkpoint.manifest["progress"].get("num_threads")
        return None if threads is None else int(threads)


def open_saved(place: str, note: Note, *, option: str = "CHECKPOINT") -> Saved:
    """Load the checkpoint at a folder or address, which was given as ``option``.

    ``place`` is that of one checkpoint (``round-000012``), or of a job's checkpoints or a run, of
    which the newest whole one is taken.

    Raises:
        UserError: there is nothing, or the run does not say where its checkpoints are.
        CheckpointError, CheckpointMismatch, StorageError: it cannot be loaded.
    """
    with explained(f"read {place}"):
        if place.startswith(MONGO) or is_run_folder(Path(place).expanduser()):
            folder, number = _checkpoints_of_run(place, option), None
        else:
            folder, number = locate(place, option)
    storage = open_storage(folder)
    checkpoint = Checkpoints(storage, None, note).load(number)
    return Saved(f"{storage.url}/round-{checkpoint.round:06d}", checkpoint)


def every_saved(place: str, note: Note) -> list[str]:
    """Return the addresses of all checkpoints that are kept beside the one that is at a place.

    Raises:
        UserError, CheckpointError, StorageError: as ``open_saved``.
    """
    folder = open_saved(place, note).where.rpartition("/")[0]
    storage = open_storage(folder)
    with explained(f"read {folder}"):
        rounds = Checkpoints(storage, None, note).rounds()
    return [f"{storage.url}/round-{number:06d}" for number in rounds]


def _checkpoints_of_run(place: str, option: str) -> str:
    """Tell where a run saved its last checkpoint."""
    run = open_run(place, option)
    if not run.record.checkpoints:
        raise UserError(f"the run {place} has saved no checkpoint yet; try again after a round.")
    folder = str(run.record.checkpoints[-1]["path"]).rpartition("/")[0]
    if "://" not in folder and not Path(folder).is_dir():
        raise UserError(
            f"the run {place} had its checkpoints in {folder}, which is not here; give the "
            "folder that they are in now."
        )
    return folder
