"""What could not be written of a run's record: told once, and again when it is made up for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scaling_fl.runtime.storage.errors import Diagnosis, diagnose


class Trouble:
    """Lets a run go on whose record cannot be written, and remembers what is missing there.

    ``note`` takes one sentence when something cannot be written, and when all is there again.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self.note = note
        self.missing: dict[str, Diagnosis] = {}
        """What is not as it should be, and why."""

    @contextmanager
    def told(self, name: str, folder: Path) -> Iterator[None]:
        """Do what writes ``name`` to the folder of the run; an error of the disk ends it."""
        try:
            yield
        except OSError as error:
            is_first = not self.missing
            self.missing[name] = diagnose(error)
            if is_first:
                reason = self.missing[name]
                self.note(
                    f"could not write {name} to {folder}: {reason.text}; {reason.remedy}; the run "
                    "goes on, and its record is completed when that is done."
                )
        else:
            was_missing = self.missing.pop(name, None)
            if was_missing and not self.missing:
                self.note(f"the record of the run in {folder} is complete again.")

    def sentence(self, folder: Path) -> str:
        """Say what is missing, why, and what mends it."""
        reason = next(iter(self.missing.values()))
        return (
            f"the record in {folder} lacks the newest {', '.join(self.missing)}: {reason.text}; "
            f"{reason.remedy}, then `./run-local.sh scripts/sync_runs.py --runs-dir "
            f"{folder.parent}` completes it from the journal."
        )
