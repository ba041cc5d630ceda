"""What the federation knows between two rounds: a value, from which a round makes the next one."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from torch import Tensor

Tensors = Mapping[str, Tensor]
"""Tensors by name."""


@dataclass(frozen=True)
class Memory:
    """What is remembered from round to round beside the global vector; equal on all workers.

    The server remembers an adaptive clip, the vector that froze the download mask, what the frozen
    base of an adapter has moved by, and the mean of the clients' control variates. A client
    remembers its own (SCAFFOLD), its part of the model, where clients keep one, and its residual:
    what its last payload did not carry, for error feedback.
    """

    server: Tensors = field(default_factory=dict)
    clients: Mapping[int, Tensors] = field(default_factory=dict)
    """By the client's number."""

    def to_tensors(self) -> dict[str, Tensor]:
        """Name every tensor as in checkpoints: NAME for the server, NAME.CLIENT for a client."""
        of_clients = {
            f"{name}.{client}": tensor
            for client, tensors in self.clients.items()
            for name, tensor in tensors.items()
        }
        return {**self.server, **of_clients}

    def only(self, names: Collection[str], clients: Collection[int]) -> "Memory":
        """Return what the server and some clients remember under some names."""

        def named(tensors: Tensors) -> Tensors:
            return {name: tensor for name, tensor in tensors.items() if name in names}

        of_clients = {
            client: found
            for client, tensors in self.clients.items()
            if client in clients and (found := named(tensors))
        }
        return Memory(named(self.server), of_clients)

    @classmethod
    def from_tensors(cls, tensors: Tensors) -> "Memory":
        """Undo ``to_tensors``."""
        server: dict[str, Tensor] = {}
        clients: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            head, _, tail = name.rpartition(".")
            if tail.isdecimal():
                clients.setdefault(int(tail), {})[head] = tensor
            else:
                server[name] = tensor
        return cls(server, clients)


@dataclass(frozen=True)
class GlobalState:
    """The vector that all clients start a round from, and what the server knows beside it.

    Nobody writes to its tensors once a round has begun: a server step returns the next state.
    ``digest`` is a hash over all rounds so far: two runs with equal digests had, in every round,
    bitwise equal vectors, bases, control variates and clients' parts of the model, equal cohorts
    and equal configurations. It does not cover the optimiser's state, residuals, the clip and the
    mask.
    """

    vector: Tensor
    optimiser: Tensors = field(default_factory=dict)
    """The state of the server's optimiser."""
    memory: Memory = field(default_factory=Memory)
    round: int = 0
    total_bytes: int = 0
    digest: str = ""
