"""The link between the server and the clients of a tier: the settings that both ends know."""

from dataclasses import KW_ONLY, dataclass

from torch import Tensor

from scaling_fl.methods.wire.direction import PLAIN, Direction, Payload
from scaling_fl.methods.wire.holding import Holding


@dataclass(frozen=True)
class Link:
    """How a vector of ``size`` coordinates is sent to a client, and how its update is sent back.

    Source: arXiv 2406.05233, algorithm 1 (FLASC). A mask of the paper is a density here: the server
    masks the global vector, the client trains all coordinates from that, and the client masks its
    update, which is relative to the masked vector.
    """

    size: int
    down: Direction = PLAIN
    up: Direction = PLAIN
    _: KW_ONLY
    uploads_state: bool = False
    """Clients send their trained parameters in place of updates."""
    error_feedback: bool = False
    """Clients add to each update what the last payload did not carry. Source: arXiv 1901.09847."""
    client_freeze: bool = False
    """A client changes and sends only the coordinates that it received."""
    server_freeze: bool = False
    """Round 1 sends all coordinates down; the state after it chooses those of all later rounds."""
    holding: Holding | None = None
    """The coordinates that clients of this link hold; None: all."""
    always_down: Tensor | None = None
    """bool of ``size``: sent down whatever their magnitude; clients must hold all of them."""
    always_up: Tensor | None = None
    """bool of ``size``: sent up whatever their magnitude."""
    num_extras: int = 0
    """The number of other vectors of ``size`` that the merge needs from a client, in fp32."""

    @property
    def num_held(self) -> int:
        """Count the coordinates that a client holds."""
        return self.holding.size if self.holding else self.size

    def num_bytes(self, round_number: int) -> tuple[int, int]:
        """Predict a client's bytes (down, up) in a round; they do not depend on the values."""
        num_down = self.num_down(round_number, _count(self.always_down))
        down = self.down.num_bytes(self.num_held, num_down)
        num_trainable = num_down if self.client_freeze else self.num_held
        num_up = self.num_up(num_trainable, round_number, _count(self.always_up))
        choice = self.holding.num_bytes if self.holding else 0
        extras = self.num_extras * PLAIN.num_bytes(self.size, self.size)
        return choice + down, self.up.num_bytes(num_trainable, num_up) + extras

    def num_down(self, round_number: int, num_always: int) -> int:
        """Count the coordinates that are sent down; ``num_always`` are sent in any case."""
        if self.server_freeze and round_number == 1:
            return self.num_held
        return self.down.num_sent(self.num_held, round_number, num_always)

    def num_up(self, num_trainable: int, round_number: int, num_always: int) -> int:
        """Count the coordinates that a client sends: min(num_trainable, density * num_held).

        The client may change ``num_trainable`` coordinates; ``num_always`` are sent in any case.
        """
        return min(num_trainable, self.up.num_sent(self.num_held, round_number, num_always))


@dataclass(frozen=True)
class Download:
    """What the server sends to a client: which coordinates the client holds, and their values."""

    choice: bytes
    """See ``Holding.choose``; empty if the client holds the same coordinates in every round."""
    payload: Payload

    @property
    def num_bytes(self) -> int:
        return len(self.choice) + self.payload.num_bytes

    def coordinates(self, link: Link) -> Tensor | None:
        """Return the coordinates of the payload's vector, ascending; None: all."""
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
    """Return the marks at some coordinates (None: all), and the number of marks that are set."""
    selected = None if marks is None else select(marks, coordinates)
    return selected, _count(selected)


def _count(marks: Tensor | None) -> int:
    return 0 if marks is None else int(marks.count_nonzero())
