"""What travels between the server and a client: real payloads, counted by their length."""

from dataclasses import dataclass

import torch
from torch import Tensor

from scaling_fl.methods.payloads import decode, encode, payload_size
from scaling_fl.methods.sparsity import count_kept, density_at, top_k


@dataclass(frozen=True, kw_only=True)
class Direction:
    """How one direction is sent: the largest coordinates are kept, then written by a codec.

    In round r a share of ``density * density_decay ** ((r - 1) // decay_every)`` is kept.
    """

    codec: str = "none"
    density: float = 1.0
    density_decay: float = 1.0
    decay_every: int = 1

    def num_kept(self, size: int, round_number: int) -> int:
        density = density_at(round_number, self.density, self.density_decay, self.decay_every)
        return count_kept(size, density)

    def num_bytes(self, size: int, round_number: int) -> int:
        """Return the payload's length, which does not depend on the values."""
        kept = self.num_kept(size, round_number)
        return payload_size(size, None if kept == size else kept, self.codec)

    def is_exact(self, size: int, round_number: int) -> bool:
        return self.codec == "none" and self.num_kept(size, round_number) == size

    def send(self, vector: Tensor, round_number: int) -> tuple[Tensor, int]:
        """Encode a vector (fp32, any device) and decode it at the other end.

        Returns what arrives, on the vector's device, and the payload's length in bytes. What
        would arrive unchanged is returned as it is, and so is a vector that is not finite, which
        has no encoding and which nobody uses.
        """
        size = vector.numel()
        if self.is_exact(size, round_number) or not torch.isfinite(vector).all():
            return vector, self.num_bytes(size, round_number)
        values = vector.detach().cpu()
        kept = self.num_kept(size, round_number)
        indices = None if kept == size else top_k(values, kept)
        payload = encode(values, codec=self.codec, indices=indices)
        return decode(payload, size=size).to(vector.device), len(payload)


@dataclass(frozen=True)
class Download:
    """What every client of a round receives of the global vector ``state``."""

    state: Tensor
    received: Tensor
    num_bytes: int


class Link:
    """The way to a client and back.

    Source: arXiv 2406.05233, algorithm 1 (FLASC), whose masks are the densities here: the state
    is masked for the way down, a client trains densely, and its update, relative to the masked
    state, is masked for the way up.
    """

    def __init__(
        self,
        download: Direction = Direction(),
        upload: Direction = Direction(),
        *,
        uploads_state: bool = False,
    ) -> None:
        self._download, self._upload, self._uploads_state = download, upload, uploads_state

    def download(self, state: Tensor, round_number: int) -> Download:
        return Download(state, *self._download.send(state, round_number))

    def upload(self, trained: Tensor, start: Download, round_number: int) -> tuple[Tensor, int]:
        """Turn a trained vector, in place, into the update that arrives; returns its bytes too.

        The update is relative to what the client received. If states are uploaded instead, it is
        what takes the global vector to the decoded state, so that their mean is the new state.
        """
        if self._uploads_state:
            arrived, num_bytes = self._upload.send(trained, round_number)
            return torch.sub(arrived, start.state, out=trained), num_bytes
        arrived, num_bytes = self._upload.send(trained.sub_(start.received), round_number)
        return (trained if arrived is trained else trained.copy_(arrived)), num_bytes
