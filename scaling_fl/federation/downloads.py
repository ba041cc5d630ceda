"""The downloads of a round: one for each tier, which this process encodes and decodes once."""

from collections.abc import Sequence
from dataclasses import replace

from scaling_fl.core.state import GlobalState
from scaling_fl.federation.base import send_base
from scaling_fl.federation.client_end import ClientEnd, Received
from scaling_fl.federation.link import Download, Link
from scaling_fl.federation.scaffold import CONTROL
from scaling_fl.federation.server_end import ServerEnd

MASK = "download.mask"
"""The key under which the server remembers the vector that froze the download mask."""


class Downloads:
    """The downloads of one round, each made at its first use.

    All clients of a tier receive the same vector, so one process decodes it once for all of them.
    """

    def __init__(self, links: Sequence[Link], state: GlobalState, round_number: int) -> None:
        self._links, self._state, self._round = links, state, round_number
        self._sent: dict[int, Download] = {}
        self._received: dict[int, Received] = {}

    @property
    def num_tiers(self) -> int:
        return len(self._links)

    def sent(self, tier: int) -> Download:
        """Return the download that the server sends to a tier."""
        if tier not in self._sent:
            remembered = self._state.memory.server
            self._sent[tier] = ServerEnd(self._links[tier]).download(
                self._state.vector,
                self._round,
                mask_by=remembered.get(MASK),
                control=remembered.get(CONTROL),
            )
        return self._sent[tier]

    def received(self, tier: int) -> Received:
        """Return what every client of a tier receives."""
        if tier not in self._received:
            end, vector = ClientEnd(self._links[tier]), self._state.vector
            # Nothing moves what clients keep in the global vector: it is what they began with.
            self._received[tier] = end.receive(self.sent(tier), vector.device, first=vector)
        return self._received[tier]

    def received_by(self, client: int, tier: int) -> Received:
        """Return what a client of a tier receives, with the bytes of the base that it lacks."""
        received = self.received(tier)
        base = send_base(self._state.memory.server, client)
        if base is None:
            return received
        return replace(received, num_bytes=received.num_bytes + base.num_bytes)
