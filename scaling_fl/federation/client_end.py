"""A client's end of a link: download -> received vector, trained vector -> payload."""

from dataclasses import dataclass

import torch
from torch import Tensor

from scaling_fl.core.state import Tensors
from scaling_fl.federation import scaffold
from scaling_fl.federation.link import Download, Link, count_at, select
from scaling_fl.federation.personal import own_of
from scaling_fl.federation.scaffold import CONTROL
from scaling_fl.methods.wire.direction import PLAIN, Payload

RESIDUAL = "upload.residual"
"""The key under which a client remembers its residual: what its last payload did not carry."""


@dataclass(frozen=True)
class Received:
    """The vector that a client trains from: fp32, 0 where the client received nothing."""

    vector: Tensor
    trainable: Tensor | None
    """The coordinates that the client may change, ascending; None: all."""
    sendable: Tensor | None
    """The coordinates that the client may send, ascending; None: all."""
    num_bytes: int
    control: Tensor | None = None
    """The server's control variate (fp32, the vector's size), with SCAFFOLD."""


@dataclass(frozen=True)
class ClientEnd:
    """Receives the global vector from a link, and sends the trained vector or its update."""

    link: Link

    def receive(
        self, download: Download, device: torch.device, first: Tensor | None = None
    ) -> Received:
        """Decode a download onto a device; ``first`` has what clients keep, before a first turn."""
        values = download.payload.decode().to(device)
        where = download.coordinates(self.link)
        vector = values
        if where is not None:
            vector = torch.zeros(self.link.size, device=device)
            vector[where.to(device)] = values
        kept = self.link.kept(download.choice)
        if kept is not None and first is not None:
            vector[kept.to(device)] = select(first, kept)
        places = (download.trainable(self.link), download.sendable(self.link))
        trainable, sendable = (None if p is None else p.to(device) for p in places)
        control = download.control.decode().to(device) if download.control else None
        return Received(vector, trainable, sendable, download.num_bytes, control)

    def send_trained(
        self, trained: Tensor, received: Received, round_number: int, memory: Tensors
    ) -> tuple[Payload, Tensors]:
        """Send the update, or the trained vector itself if the link uploads states.

        Overwrites ``trained`` (fp32). ``memory`` is what the client remembers of its last turn.
        Returns the payload, and what the client must remember for its next turn.
        """
        own = own_of(trained, self.link.personal)
        if not self.link.uploads_state:
            trained.sub_(received.vector)
        payload, remembered = self.send(trained, received, round_number, memory)
        return payload, {**remembered, **own}

    def send_control(
        self, trained: Tensor, received: Received, distance: float, memory: Tensors
    ) -> tuple[dict[str, Payload], Tensors]:
        """Send what the client's control variate changes by; nothing without SCAFFOLD.

        Call it before ``trained`` is sent. ``distance`` is as in ``scaffold.change``. Returns the
        payload by its name, and what the client must remember for its next turn.
        """
        if received.control is None:
            return {}, {}
        change = scaffold.change(received.control, received.vector, trained, distance)
        own = memory.get(CONTROL)
        payload = PLAIN.send(change, change.numel())
        return {CONTROL: payload}, {CONTROL: change if own is None else own + change}

    def send(
        self, values: Tensor, received: Received, round_number: int, memory: Tensors
    ) -> tuple[Payload, Tensors]:
        """Send ``values`` (fp32 of the vector's size); overwrites them."""
        link, sendable = self.link, received.sendable
        residual = memory.get(RESIDUAL)
        if residual is not None:
            values.add_(residual)
        mine = select(values, sendable)
        always, num_always = count_at(link.always_up, sendable)
        payload = link.up.send(
            mine, link.num_up(mine.numel(), round_number, num_always), always=always
        )
        if not link.error_feedback:
            return payload, {}
        # Where the client may not change a coordinate now, its residual waits for a later round.
        rest = torch.zeros_like(values) if residual is None else residual.clone()
        where = slice(None) if sendable is None else sendable
        rest[where] = mine - payload.decode().to(mine.device)
        return payload, {RESIDUAL: rest}
