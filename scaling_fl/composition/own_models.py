"""The model of one client of a run whose clients keep a part of the model."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from scaling_fl.config import read_single_settings
from scaling_fl.config.merges import row_of
from scaling_fl.core.errors import UserError
from scaling_fl.core.state import Memory, Tensors
from scaling_fl.federation.personal import PERSONAL, with_own
from scaling_fl.federation.remote import turn_of
from scaling_fl.learning.task import Indices
from scaling_fl.methods.pairs import coordinates_of
from scaling_fl.runtime.record.turns import TurnFiles
from scaling_fl.runtime.tracking.places import Saved


def memory_of(saved: Saved) -> Memory:
    """Return what the server and the clients of a run remember."""
    tensors = {
        name.removeprefix("memory."): tensor
        for name, tensor in saved.checkpoint.optimiser.items()
        if name.startswith("memory.")
    }
    return Memory.from_tensors(tensors)


@dataclass(frozen=True)
class OwnParts:
    """What the clients of a run keep of the model, and who answers which test examples by it."""

    personal: Tensor
    """bool of the layout's size: the coordinates that clients keep."""
    memories: Mapping[int, Tensors]
    where: str
    owners: Indices | None = None
    """The client that answers each test example, -1: none; None: the global vector does."""

    def of(self, client: int, vector: Tensor, option: str) -> Tensor:
        """Return the vector of one client's model, on the global ``vector``.

        The client was given as ``option``.

        Raises:
            UserError: the client has taken part in no round.
        """
        if client not in self.memories:
            known = ", ".join(map(str, sorted(self.memories)))
            raise UserError(
                f"{option} must be one that has taken part in a round ({known}), got {client}; "
                "name another one."
            )
        self.check_are_here([client])
        return with_own(vector, self.personal, self.memories[client])

    def check_are_here(self, clients: Iterable[int]) -> None:
        """Refuse to take the global model for that of a client.

        Raises:
            UserError: the part of a client lies on its node.
        """
        for client in clients:
            if PERSONAL not in self.memories[client]:
                raise UserError(
                    f"the part of the model that client {client} of {self.where} keeps lies on its "
                    f"node, in the turn of round {turn_of(self.memories[client])}; name client "
                    f"{client} by --client, and the folder memory/JOB of its node by --node."
                )


def own_parts(saved: Saved, node: str | None = None) -> OwnParts | None:
    """Return what the clients of a run keep; None: every client has the global model.

    Clients on other machines remember in the folder of a job on their ``node``.
    """
    parts = personal_parts(saved)
    if not parts:
        return None
    memories = dict(memory_of(saved).clients)
    if node is not None:
        turns = TurnFiles(Path(node))
        for client, known in memories.items():
            memories[client] = {**known, **(turns.load(client, turn_of(known)) or {})}
    return OwnParts(coordinates_of(parts, saved.checkpoint.layout), memories, saved.where)


def personal_parts(saved: Saved) -> tuple[str, ...]:
    return row_of(read_single_settings(saved.checkpoint.config).merge.method).personal


def model_of(
    saved: Saved,
    client: int | None,
    vector: Tensor,
    *,
    node: str | None = None,
    option: str = "--client",
) -> Tensor:
    """Return the vector of a run's model or, where clients keep a part of it, of a client's.

    ``vector`` is the global one, or what a tier receives of it. The client was given as ``option``,
    and what it remembers is in the folder of the job on its ``node``, if it is not here.

    Raises:
        UserError: the client is not named where models differ, or named where they do not.
        UserError: what it remembers is not in that folder.
    """
    own = own_parts(saved, node)
    if own and client is not None:
        return own.of(client, vector, option)
    if own:
        raise UserError(
            f"{option} must name a client, because each client of {saved.where} keeps a part of "
            "its model; give its number."
        )
    if client is not None:
        raise UserError(
            f"{option} needs a run whose clients keep a part of the model (merge.method=share_a), "
            f"and {saved.where} has one model for all; leave it out."
        )
    return vector
