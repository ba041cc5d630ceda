"""A client's end of a link: download -> what it trains from, trained vector -> payload."""

from dataclasses import dataclass

import torch
from torch import Tensor

from scaling_fl.core.state import Tensors
from scaling_fl.federation.link import Download, Link, count_at, select
from scaling_fl.methods.wire.direction import Payload

RESIDUAL = "upload.residual"
"""Where a client remembers what error feedback held back of its last update."""


@dataclass(frozen=True)
class Received:
    """What a client trains from: fp32 of the vector's size, 0 where it received nothing."""

    vector: Tensor
    trainable: Tensor | None
    """The coordinates that the client may change and send, ascending; None: all."""
    num_bytes: int


@dataclass(frozen=True)
class ClientEnd:
    """Receives the global vector from a link, and sends what training made of it."""

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
        """Send what training came to; the trained vector (fp32) is written over.

        ``memory`` is what the client remembers of its last turn. Returns the payload and what the
        client has to remember for its next one.
        """
        if not self.link.uploads_state:
            trained.sub_(received.vector)
        return self.send(trained, received, round_number, memory)

    def send(
        self, values: Tensor, received: Received, round_number: int, memory: Tensors
    ) -> tuple[Payload, Tensors]:
        """Send a vector (fp32 of the vector's size) as it is; it is written over."""
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
        # What the client may not change now waits until it may again.
        rest = torch.zeros_like(values) if residual is None else residual.clone()
        where = slice(None) if trainable is None else trainable
        rest[where] = mine - payload.decode().to(mine.device)
        return payload, {RESIDUAL: rest}
