"""One direction of what travels: which coordinates are sent, and the payload that carries them."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from scaling_fl.methods.wire.payloads import decode, decode_indices, encode, payload_size
from scaling_fl.methods.wire.sparsity import count_kept, density_at, top_k


@dataclass(frozen=True)
class Payload:
    """A vector on its way: the bytes that carry it, counted by their length.

    A vector that arrives as it is stays one until somebody asks for its bytes, so that one process
    neither copies nor encodes it. A vector that is not finite has no encoding; its receiver leaves
    the sender out.
    """

    size: int
    """Coordinates of the vector, sent or not."""
    num_bytes: int
    data: bytes | None = None
    """None: ``vector`` arrives as it is."""
    vector: Tensor | None = None
    """fp32 of ``size``: what arrives. None: it is decoded from ``data``."""
    indices: Tensor | None = field(default=None, compare=False)
    """The coordinates that are sent: ascending int64 on the CPU. None: all, or as in ``data``."""

    @classmethod
    def from_bytes(cls, data: bytes, size: int) -> "Payload":
        """Receive the bytes of a payload for a vector of ``size``.

        Raises:
            PayloadError: the bytes are no such payload.
        """
        return cls(size, len(data), data, indices=decode_indices(data, size=size))

    def __bytes__(self) -> bytes:
        """Return what travels; raises ValueError where the vector is not finite."""
        if self.data is not None:
            return self.data
        assert self.vector is not None
        return encode(self.vector.cpu())

    def decode(self, out: Tensor | None = None) -> Tensor:
        """Return what arrives (fp32 of ``size``), in the memory of ``out`` if it is on the CPU."""
        if self.vector is not None:
            return self.vector
        assert self.data is not None
        on_cpu = out is not None and out.device.type == "cpu" and out.numel() == self.size
        return decode(self.data, size=self.size, out=out if on_cpu else None)

    def kept(self) -> "Payload":
        """Return the same payload in memory of its own; one that has no encoding stays as it is."""
        if self.vector is not None and not torch.isfinite(self.vector).all():
            return self
        return replace(self, data=bytes(self), vector=None)


@dataclass(frozen=True, kw_only=True)
class Direction:
    """How one direction is sent: the largest coordinates are chosen, then written by a codec.

    In round r a share of ``density * density_decay ** ((r - 1) // decay_every)`` is sent.
    """

    codec: str = "none"
    density: float = 1.0
    density_decay: float = 1.0
    decay_every: int = 1

    def num_sent(self, size: int, round_number: int, num_always: int = 0) -> int:
        """Count what is sent of ``size`` coordinates, of which ``num_always`` always are."""
        if num_always == size:
            return size
        density = density_at(round_number, self.density, self.density_decay, self.decay_every)
        return num_always + count_kept(size - num_always, density)

    def num_bytes(self, size: int, num_sent: int) -> int:
        """Predict the length of a payload, which no value changes."""
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

        ``rank_by`` has the magnitudes that choose in place of the vector's own, ``always`` marks
        the coordinates that are sent whatever their magnitude.
        """
        size = vector.numel()
        num_bytes = self.num_bytes(size, num_sent)
        arrives_as_it_is = self.codec == "none" and num_sent == size
        if arrives_as_it_is or not torch.isfinite(vector).all():
            return Payload(size, num_bytes, vector=vector)
        values = vector.cpu()
        indices = None if num_sent == size else _largest(values, num_sent, rank_by, always)
        data = encode(values, codec=self.codec, indices=indices)
        return Payload(size, len(data), data, indices=indices)


PLAIN = Direction()
"""Everything is sent as it is, in fp32."""


def _largest(values: Tensor, count: int, rank_by: Tensor | None, always: Tensor | None) -> Tensor:
    magnitudes = values if rank_by is None else rank_by.detach().cpu()
    if always is not None:
        magnitudes = magnitudes.masked_fill(always.cpu(), torch.inf)
    return top_k(magnitudes, count)
