"""The way to the clients of a tier and back: what both ends of it agree on."""

from dataclasses import KW_ONLY, dataclass

from torch import Tensor

from scaling_fl.methods.wire.direction import PLAIN, Direction, Payload
from scaling_fl.methods.wire.holding import Holding


@dataclass(frozen=True)
class Link:
    """How a vector of ``size`` coordinates goes to a client, and how its update comes back.

    Source: arXiv 2406.05233, algorithm 1 (FLASC), whose masks are the densities here: the state
    is masked for the way down, a client trains densely, and its update, relative to the masked
    state, is masked for the way up.
    """

    size: int
    down: Direction = PLAIN
    up: Direction = PLAIN
    _: KW_ONLY
    uploads_state: bool = False
    """Send trained parameters in place of updates."""
    error_feedback: bool = False
    """Add what was not sent the last time to what is sent now. Source: arXiv 1901.09847."""
    client_freeze: bool = False
    """A client changes and sends only the coordinates that it received."""
    server_freeze: bool = False
    """The first round is dense, and the state after it chooses what is sent down from then on."""
    holding: Holding | None = None
    """Which coordinates clients of this link hold; None: all."""
    always_down: Tensor | None = None
    """bool of ``size``: what is sent down whatever its magnitude. Clients must hold all of it."""
    always_up: Tensor | None = None
    num_extras: int = 0
    """How many vectors of ``size`` a merge has clients send beside their updates, as they are."""

    @property
    def num_held(self) -> int:
        """Count the coordinates that a client holds."""
        return self.holding.size if self.holding else self.size

    def num_bytes(self, round_number: int) -> tuple[int, int]:
        """Predict the bytes down and up of a client, whatever the values are."""
        num_down = self.num_down(round_number, _count(self.always_down))
        down = self.down.num_bytes(self.num_held, num_down)
        num_trainable = num_down if self.client_freeze else self.num_held
        num_up = self.num_up(num_trainable, round_number, _count(self.always_up))
        choice = self.holding.num_bytes if self.holding else 0
        extras = self.num_extras * PLAIN.num_bytes(self.size, self.size)
        return choice + down, self.up.num_bytes(num_trainable, num_up) + extras

    def num_down(self, round_number: int, num_always: int) -> int:
        """Count the coordinates that are sent down, of which ``num_always`` always are."""
        if self.server_freeze and round_number == 1:
            return self.num_held
        return self.down.num_sent(self.num_held, round_number, num_always)

    def num_up(self, num_trainable: int, round_number: int, num_always: int) -> int:
        """Count the coordinates that a client sends of those that it may change.

        The density is a share of what the client holds, of which it may change less.
        """
        return min(num_trainable, self.up.num_sent(self.num_held, round_number, num_always))


@dataclass(frozen=True)
class Download:
    """What a client receives: which coordinates it holds, and their values."""

    choice: bytes
    """See ``Holding.choose``; empty when a client holds all coordinates or always the same."""
    payload: Payload

    @property
    def num_bytes(self) -> int:
        return len(self.choice) + self.payload.num_bytes

    def coordinates(self, link: Link) -> Tensor | None:
        """Return the coordinates that the payload is of; None: all."""
        return link.holding.coordinates(self.choice) if link.holding else None

    def trainable(self, link: Link) -> Tensor | None:
        """Return the coordinates that the client may change and send, ascending; None: all."""
        held = self.coordinates(link)
        if not link.client_freeze or self.payload.indices is None:
            return held
        return self.payload.indices if held is None else held[self.payload.indices]


def select(vector: Tensor, coordinates: Tensor | None) -> Tensor:
    """Return the values at some coordinates (None: the vector itself)."""
    return vector if coordinates is None else vector[coordinates.to(vector.device)]


def count_at(marks: Tensor | None, coordinates: Tensor | None) -> tuple[Tensor | None, int]:
    """Return the marks at some coordinates, and how many are set."""
    chosen = None if marks is None else select(marks, coordinates)
    return chosen, _count(chosen)


def _count(marks: Tensor | None) -> int:
    return 0 if marks is None else int(marks.count_nonzero())
