"""A client's end of a link: download -> received vector, trained vector -> payload."""

from dataclasses import dataclass

import torch
from torch import Tensor

from scaling_fl.core.state import Tensors
from scaling_fl.federation.link import Download, Link, count_at, select
from scaling_fl.methods.wire.direction import Payload

RESIDUAL = "upload.residual"
"""The key under which a client remembers its residual: what its last payload did not carry."""


@dataclass(frozen=True)
class Received:
    """The vector that a client trains from: fp32, 0 where the client received nothing."""

    vector: Tensor
    trainable: Tensor | None
    """The coordinates that the client may change and send, ascending; None: all."""
    num_bytes: int


@dataclass(frozen=True)
class ClientEnd:
    """Receives the global vector from a link, and sends the trained vector or its update."""

    link: Link

    def receive(self, download: Download, device: torch.device) -> Received:
        """Decode a download onto a device."""
        values = download.payload.decode().to(device)
        held = download.coordinates(self.link)
        vector = values
        if held is not None:
            vector = torch.zeros(self.link.size, device=device)
            vector[held.to(device)] = values
        trainable = download.trainable(self.link)
        return Received(
            vector, None if trainable is None else trainable.to(device), download.num_bytes
        )

    def send_trained(
        self, trained: Tensor, received: Received, round_number: int, memory: Tensors
    ) -> tuple[Payload, Tensors]:
        """Send the update, or the trained vector itself if the link uploads states.

        Overwrites ``trained`` (fp32). ``memory`` is what the client remembers of its last turn.
        Returns the payload, and what the client must remember for its next turn.
        """
        if not self.link.uploads_state:
            trained.sub_(received.vector)
        return self.send(trained, received, round_number, memory)

    def send(
        self, values: Tensor, received: Received, round_number: int, memory: Tensors
    ) -> tuple[Payload, Tensors]:
        """Send ``values`` (fp32 of the vector's size); overwrites them."""
        link, trainable = self.link, received.trainable
        residual = memory.get(RESIDUAL)
        if residual is not None:
            values.add_(residual)
        mine = select(values, trainable)
        always, num_always = count_at(link.always_up, trainable)
        payload = link.up.send(
            mine, link.num_up(mine.numel(), round_number, num_always), always=always
        )
        if not link.error_feedback:
            return payload, {}
        # Where the client may not change a coordinate now, its residual waits for a later round.
        rest = torch.zeros_like(values) if residual is None else residual.clone()
        where = slice(None) if trainable is None else trainable
        rest[where] = mine - payload.decode().to(mine.device)
        return payload, {RESIDUAL: rest}
