"""What the clients of a node remember, as files of the node: one for each client and turn."""

from pathlib import Path

from torch import Tensor

from scaling_fl.runtime.record.tensor_files import read_tensors, write_tensors

_NAME = "round-{:06d}.safetensors"


class TurnFiles:
    """The memory of one job's clients, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

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
