"""What runs of a deployment on this machine: its file, and which of its processes live."""

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from scaling_fl.core.errors import UserError
from scaling_fl.core.json_text import json_text
from scaling_fl.flower.control import Control
from scaling_fl.flower.marked import end_known, end_marked
from scaling_fl.flower.programs import environment
from scaling_fl.flower.superlink import control
from scaling_fl.runtime.storage.processes import place, process_start

RECORD, SUPERLINK = "deployment.json", "superlink"
TRAIN, TEST = "train.jsonl", "test.jsonl"


@dataclass(frozen=True)
class Program:
    """A process that goes on in the background, and the port on which it listens."""

    pid: int
    start: str
    port: int

    @property
    def is_alive(self) -> bool:
        return process_start(self.pid) == self.start


@dataclass
class Deployment:
    """A SuperLink and its nodes, with all that they have below ``folder``.

    ``cwd`` is the folder below which the server writes runs/ and checkpoints/, ``programs`` are the
    processes by their names, and ``registered`` are the numbers that Flower gave to nodes.
    """

    folder: Path
    num_nodes: int
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    place: str = field(default_factory=place)
    cwd: str = field(default_factory=os.getcwd)
    programs: dict[str, Program] = field(default_factory=dict)
    registered: dict[str, str] = field(default_factory=dict)

    @property
    def nodes(self) -> list[str]:
        """The names of the nodes, which are those of their folders, too."""
        return [f"node{number}" for number in range(self.num_nodes)]

    @property
    def ca(self) -> Path:
        return self.folder / SUPERLINK / "ca.pem"

    def is_alive(self, name: str) -> bool:
        """Say whether one of the processes lives; none does that was started before a boot."""
        program = self.programs.get(name)
        return program is not None and self.place == place() and program.is_alive

    def living(self, *names: str) -> dict[int, str]:
        """Return the start of each living process by its pid; of all, or of those named."""
        alive = [self.programs[name] for name in names or self.programs if self.is_alive(name)]
        return {program.pid: program.start for program in alive}

    def environ(self, owner: str, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of a process; each has a Flower folder of its own."""
        return environment(self.folder / owner / "flwr", self.mark, environ)

    def control(self, environ: Mapping[str, str]) -> Control:
        return control(self.environ(SUPERLINK, environ))

    def node_folder(self, name: str) -> Path:
        return self.folder / name

    def end(self) -> int:
        """End all processes, and return how many there were.

        The nodes first: they tell the SuperLink that they go, and may come back at once then.
        """
        count = end_known(self.living(*self.nodes)) if self.is_alive(SUPERLINK) else 0
        return count + end_marked(self.mark, self.living())

    def write(self) -> None:
        """Write the file, so that it is there whole or not at all."""
        fields = {name: value for name, value in asdict(self).items() if name != "folder"}
        new = self.folder / f"{RECORD}.new"
        new.write_text(json_text(fields, indent=1) + "\n", encoding="utf-8")
        new.replace(self.folder / RECORD)


def read_deployment(folder: Path) -> Deployment | None:
    """Read the file of a deployment; None where there is none.

    Raises:
        UserError: the file is not one.
    """
    path = folder.resolve() / RECORD
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        programs = {name: Program(**found) for name, found in fields.pop("programs").items()}
        return Deployment(folder.resolve(), programs=programs, **fields)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{path} must be the file of a deployment; choose another folder") from None
