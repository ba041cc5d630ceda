"""What the clients of a node remember, as files of the node: one for each client and turn."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from scaling_fl.runtime.record.tensor_files import read_tensors, write_tensors

_NAME = "round-{:06d}.safetensors"
_JOB = "job.txt"
"""The file with the name that people gave to a job, whose folder is named after its uid."""


class TurnFiles:
    """The memory of one job's clients, in a folder."""

    def __init__(self, folder: Path, job_name: str = "") -> None:
        self._folder, self._job_name = folder, job_name

    def load(self, client: int, round_number: int) -> dict[str, Tensor] | None:
        """Return what a client remembers of its turn in a round; None: nothing is known of it."""
        try:
            return read_tensors(self._file(client, round_number))
        except FileNotFoundError:
            return None

    def keep(self, client: int, round_number: int, tensors: dict[str, Tensor]) -> None:
        """Keep what a client remembers of its turn in a round, and nothing of later rounds.

        A turn that is taken again replaces the former one. After a crash there is the former file,
        or the new one.
        """
        path = self._file(client, round_number)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._folder / _JOB).write_text(self._job_name, encoding="utf-8")
        for later in self._rounds(client):
            if later > round_number:
                self._file(client, later).unlink(missing_ok=True)
        part = path.with_suffix(".part")
        part.unlink(missing_ok=True)
        write_tensors(part, tensors)
        part.replace(path)

    def forget(self, client: int, oldest: int) -> None:
        """Drop all turns before the last one up to round ``oldest``."""
        before = [number for number in self._rounds(client) if number <= oldest]
        for number in before[:-1]:
            self._file(client, number).unlink(missing_ok=True)

    def _rounds(self, client: int) -> list[int]:
        found = self._file(client, 0).parent.glob("round-*.safetensors")
        return sorted(int(path.stem.removeprefix("round-")) for path in found)

    def _file(self, client: int, round_number: int) -> Path:
        return self._folder / f"client-{client:06d}" / _NAME.format(round_number)


@dataclass(frozen=True)
class RememberedJob:
    """What the clients of a node remember of a job."""

    folder: Path
    name: str
    num_clients: int
    num_bytes: int

    @property
    def uid(self) -> str:
        return self.folder.name

    def forget(self) -> None:
        """Remove all that the node's clients remember of the job."""
        shutil.rmtree(self.folder)


def remembered_jobs(memory: Path) -> list[RememberedJob]:
    """List the jobs in the folder ``memory`` of a node; a folder that is not there has none."""
    return [
        RememberedJob(
            folder,
            name.read_text(encoding="utf-8") if (name := folder / _JOB).exists() else "",
            len(list(folder.glob("client-*"))),
            sum(path.stat().st_size for path in folder.rglob("*.safetensors")),
        )
        for folder in sorted(memory.glob("*/"))
    ]
