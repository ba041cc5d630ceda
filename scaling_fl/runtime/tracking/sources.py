"""A run is found by its name, and read in the best way that there is."""

from contextlib import suppress
from pathlib import Path

from scaling_fl.core.errors import UserError
from scaling_fl.runtime.storage import open_storage
from scaling_fl.runtime.tracking.copies import DatabaseSource, FolderSource
from scaling_fl.runtime.tracking.journals import JournalSource, source_of_job
from scaling_fl.runtime.tracking.run_database import MONGO
from scaling_fl.runtime.tracking.runs import Run, RunSource, is_run_folder, locate, read_json


def open_source(place: str, option: str = "RUN") -> RunSource:
    """Find a run, and the best way to read it.

    Raises:
        UserError: there is none; it was given as ``option``.
    """
    if place.startswith(MONGO):
        number = place.removeprefix(MONGO)
        if not number.isdecimal():
            raise UserError(f"{option} must be {MONGO} and a number, got {place}; check it.")
        return DatabaseSource(int(number))
    path = Path(place).expanduser()
    if is_run_folder(path):
        return _source_of_folder(path)
    url, _ = locate(place, option)
    return source_of_job(open_storage(url), Path("runs"))


def open_run(place: str, option: str = "RUN") -> Run:
    """Read a run as it is now.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    return open_source(place, option).load()


def _source_of_folder(path: Path) -> RunSource:
    """Prefer the journal, if it is here and that of this run."""
    url = (read_json(path / "config.json") or {}).get("checkpoints_dir")
    info = read_json(path / "info.json")
    if isinstance(url, str) and isinstance(info, dict):
        with suppress(UserError):
            source = source_of_job(open_storage(url), path.parent, path)
            if isinstance(source, JournalSource) and source.uid() == info.get("uid"):
                return source
    return FolderSource(path)
