"""One direction of a link: which coordinates are sent, and the payload that carries them."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from scaling_fl.methods.wire.codecs import Codec
from scaling_fl.methods.wire.payloads import decode, decode_indices, encode, payload_size
from scaling_fl.methods.wire.sparsity import count_kept, density_at, top_k


@dataclass(frozen=True)
class Payload:
    """An encoded vector, with its exact number of bytes.

    A vector that arrives unchanged is not encoded until its bytes are needed. So a process that
    sends to itself neither copies nor encodes the vector. A vector that is not finite cannot be
    encoded; the server leaves out the client that sent it.
    """

    size: int
    """The number of coordinates of the vector, sent or not."""
    num_bytes: int
    data: bytes | None = None
    """The bytes; None: ``vector`` arrives unchanged."""
    vector: Tensor | None = None
    """The vector that arrives, fp32 of ``size``; None: it must be decoded from ``data``."""
    indices: Tensor | None = field(default=None, compare=False)
    """The coordinates that are sent: ascending int64 on the CPU; None: all."""
    own_codec: Codec | None = field(default=None, compare=False)
    """The codec of the user that made ``data``, which does not name that codec."""

    @classmethod
    def from_bytes(cls, data: bytes, size: int, own_codec: Codec | None = None) -> "Payload":
        """Make the payload from its bytes, for a vector of ``size``.

        Raises:
            PayloadError: the bytes are not a payload for a vector of this size.
        """
        indices = decode_indices(data, size=size, own=own_codec)
        return cls(size, len(data), data, indices=indices, own_codec=own_codec)

    def __bytes__(self) -> bytes:
        """Return the bytes; raises ValueError when the vector is not finite."""
        if self.data is not None:
            return self.data
        assert self.vector is not None
        return encode(self.vector.cpu())

    def decode(self, out: Tensor | None = None) -> Tensor:
        """Return the vector that arrives (fp32 of ``size``); it may be in the memory of ``out``."""
        if self.vector is not None:
            return self.vector
        assert self.data is not None
        on_cpu = out is not None and out.device.type == "cpu" and out.numel() == self.size
        target = out if on_cpu else None
        return decode(self.data, size=self.size, out=target, own=self.own_codec)

    def encoded(self) -> "Payload":
        """Return the payload as bytes; a vector that is not finite stays a vector."""
        if self.vector is not None and not torch.isfinite(self.vector).all():
            return self
        return replace(self, data=bytes(self), vector=None)


@dataclass(frozen=True, kw_only=True)
class Direction:
    """How one direction of a link sends a vector: choose the largest coordinates, then encode them.

    In round r, the density is ``density * density_decay ** ((r - 1) // decay_every)``.
    """

    codec: str | Codec = "none"
    """The name of a codec, or one of the user."""
    density: float = 1.0
    density_decay: float = 1.0
    decay_every: int = 1

    def num_sent(self, size: int, round_number: int, num_always: int = 0) -> int:
        """Count the coordinates that are sent of ``size``; ``num_always`` are sent in any case."""
        if num_always == size:
            return size
        density = density_at(round_number, self.density, self.density_decay, self.decay_every)
        return num_always + count_kept(size - num_always, density)

    def num_bytes(self, size: int, num_sent: int) -> int:
        """Predict the length of a payload; the length does not depend on the values."""
        return payload_size(size, None if num_sent == size else num_sent, self.codec)

    def send(
        self,
        vector: Tensor,
        num_sent: int,
        *,
        rank_by: Tensor | None = None,
        always: Tensor | None = None,
    ) -> Payload:
        """Make the payload of a vector (fp32, any device).

        The coordinates of the largest magnitude in ``rank_by`` (None: in ``vector``) are sent.
        ``always`` marks coordinates that are sent whatever their magnitude.
        """
        size = vector.numel()
        num_bytes = self.num_bytes(size, num_sent)
        arrives_unchanged = self.codec == "none" and num_sent == size
        if arrives_unchanged or not torch.isfinite(vector).all():
            return Payload(size, num_bytes, vector=vector)
        values = vector.cpu()
        indices = None if num_sent == size else _largest(values, num_sent, rank_by, always)
        data = encode(values, codec=self.codec, indices=indices)
        own_codec = self.codec if isinstance(self.codec, Codec) else None
        return Payload(size, len(data), data, indices=indices, own_codec=own_codec)


PLAIN = Direction()
"""Sends all coordinates in fp32."""


def _largest(values: Tensor, count: int, rank_by: Tensor | None, always: Tensor | None) -> Tensor:
    magnitudes = values if rank_by is None else rank_by.detach().cpu()
    if always is not None:
        magnitudes = magnitudes.masked_fill(always.cpu(), torch.inf)
    return top_k(magnitudes, count)
