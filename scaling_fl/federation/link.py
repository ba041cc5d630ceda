"""The link between the server and the clients of a tier: the settings that both ends know."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
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
    extras: Sequence[int] = ()
    """The sizes of the other vectors that the merge needs from a client, in fp32."""
    controls: bool = False
    """SCAFFOLD's control variates travel beside the vector, down and up, in fp32."""
    turns: Sequence[Tensor] = ()
    """What a client changes and sends in round 1, 2 and so on, in turns (bool of ``size`` each);
    empty: everything."""
    personal: Tensor | None = None
    """bool of ``size``: what every client trains and keeps. It is sent neither way, so that the
    global vector has there what all clients began with."""

    @property
    def num_held(self) -> int:
        """Count the coordinates that a client holds."""
        return self.holding.size if self.holding else self.size

    def num_bytes(self, round_number: int) -> tuple[int, int]:
        """Predict a client's bytes (down, up) in a round; they do not depend on the values."""
        choice = self.holding.choose(torch.zeros(self.size)) if self.holding else b""
        lower = self.down_coordinates(choice, round_number)
        upper = self.up_coordinates(choice, round_number)
        size = self._len(lower)
        num_down = self.num_down(size, round_number, count_at(self.always_down, lower)[1])
        down = self.down.num_bytes(size, num_down)
        num_sendable = num_down if self.client_freeze else self._len(upper)
        num_up = self.num_up(num_sendable, round_number, count_at(self.always_up, upper)[1])
        up = self.up.num_bytes(num_sendable, num_up)
        control = self.controls * PLAIN.num_bytes(self.size, self.size)
        extras = sum(PLAIN.num_bytes(size, size) for size in self.extras)
        return len(choice) + down + control, up + extras + control

    def num_down(self, size: int, round_number: int, num_always: int) -> int:
        """Count the coordinates that are sent down of ``size``; ``num_always`` in any case."""
        if self.server_freeze and round_number == 1:
            return size
        return self.down.num_sent(size, round_number, num_always)

    def num_up(self, num_sendable: int, round_number: int, num_always: int) -> int:
        """Count the coordinates that a client sends of the ``num_sendable`` that it may send.

        The density is a share of these or, where a client sends only what it received, of all that
        it holds. ``num_always`` are sent in any case.
        """
        size = self.num_held if self.client_freeze else num_sendable
        return min(num_sendable, self.up.num_sent(size, round_number, num_always))

    def turn(self, round_number: int) -> Tensor | None:
        """Mark what a round may move of the global vector: bool of ``size``; None: all."""
        if self.personal is not None:
            return ~self.personal
        return self.turns[(round_number - 1) % len(self.turns)] if self.turns else None

    def held(self, choice: bytes) -> Tensor | None:
        """Return the coordinates that a client holds, ascending; None: all."""
        return self.holding.coordinates(choice) if self.holding else None

    def down_coordinates(self, choice: bytes, round_number: int) -> Tensor | None:
        """Return the coordinates that a download is about, ascending; None: all."""
        personal = self.personal is not None
        return _marked(self.held(choice), self.turn(round_number) if personal else None)

    def up_coordinates(self, choice: bytes, round_number: int) -> Tensor | None:
        """Return the coordinates that an upload is about, ascending; None: all."""
        return _marked(self.held(choice), self.turn(round_number))

    def kept(self, choice: bytes) -> Tensor | None:
        """Return the coordinates that a client trains and keeps, ascending; None: none."""
        return None if self.personal is None else _marked(self.held(choice), self.personal)

    def _len(self, coordinates: Tensor | None) -> int:
        return self.size if coordinates is None else len(coordinates)


@dataclass(frozen=True)
class Download:
    """What the server sends to a client in a round: what it holds, and the values there."""

    choice: bytes
    """See ``Holding.choose``; empty if the client holds the same coordinates in every round."""
    payload: Payload
    round_number: int
    control: Payload | None = None
    """The server's control variate, with SCAFFOLD."""

    @property
    def num_bytes(self) -> int:
        control = self.control.num_bytes if self.control else 0
        return len(self.choice) + self.payload.num_bytes + control

    def coordinates(self, link: Link) -> Tensor | None:
        """Return the coordinates of the payload's vector, ascending; None: all."""
        return link.down_coordinates(self.choice, self.round_number)

    def sendable(self, link: Link) -> Tensor | None:
        """Return the coordinates that the client may send, ascending; None: all."""
        if not link.client_freeze or self.payload.indices is None:
            return link.up_coordinates(self.choice, self.round_number)
        held = self.coordinates(link)
        return self.payload.indices if held is None else held[self.payload.indices]

    def trainable(self, link: Link) -> Tensor | None:
        """Return the coordinates that the client may change, ascending; None: all."""
        return self.sendable(link) if link.personal is None else link.held(self.choice)


def select(vector: Tensor, coordinates: Tensor | None) -> Tensor:
    """Return the values at some coordinates (None: the vector itself)."""
    return vector if coordinates is None else vector[coordinates.to(vector.device)]


def count_at(marks: Tensor | None, coordinates: Tensor | None) -> tuple[Tensor | None, int]:
    """Return the marks at some coordinates (None: all), and the number of marks that are set."""
    selected = None if marks is None else select(marks, coordinates)
    return selected, 0 if selected is None else int(selected.count_nonzero())


def _marked(coordinates: Tensor | None, marks: Tensor | None) -> Tensor | None:
    """Return those of the coordinates (None: all) that are marked (None: all)."""
    if marks is None:
        return coordinates
    return marks.nonzero().squeeze(1) if coordinates is None else coordinates[marks[coordinates]]
