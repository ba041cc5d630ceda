"""What travels between the server and a client: real payloads, counted by their length."""

from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from scaling_fl.methods.wire.holding import Part
from scaling_fl.methods.wire.payloads import decode, encode, payload_size
from scaling_fl.methods.wire.sparsity import count_kept, density_at, top_k


class Sent(NamedTuple):
    """What arrives of a vector, at how many bytes, and which coordinates of it were sent."""

    vector: Tensor
    num_bytes: int
    kept: Tensor | None
    """Ascending indices on the CPU; None: all."""


@dataclass(frozen=True, kw_only=True)
class Direction:
    """How one direction is sent: the largest coordinates are kept, then written by a codec.

    In round r a share of ``density * density_decay ** ((r - 1) // decay_every)`` is kept.
    """

    codec: str = "none"
    density: float = 1.0
    density_decay: float = 1.0
    decay_every: int = 1

    def num_kept(self, size: int, round_number: int, num_whole: int = 0) -> int:
        """Count what is kept of ``size`` coordinates, of which ``num_whole`` always are."""
        if num_whole == size:
            return size
        density = density_at(round_number, self.density, self.density_decay, self.decay_every)
        return num_whole + count_kept(size - num_whole, density)

    def send(
        self,
        vector: Tensor,
        num_kept: int,
        *,
        rank_by: Tensor | None = None,
        whole: Tensor | None = None,
        overwrite: bool = False,
    ) -> Sent:
        """Encode a vector (fp32, any device) and decode it at the other end.

        ``rank_by`` has the magnitudes that choose in place of the vector's own, ``whole`` marks
        the coordinates that are kept whatever they are. What would arrive unchanged is returned
        as it is, and so is a vector that is not finite, which has no encoding and nobody uses.
        ``overwrite`` decodes into the vector's own memory, because new memory takes time.
        """
        size = vector.numel()
        kept = None if num_kept == size else num_kept
        num_bytes = payload_size(size, kept, self.codec)
        if (self.codec == "none" and kept is None) or not torch.isfinite(vector).all():
            return Sent(vector, num_bytes, None)
        values = vector.cpu()
        indices = None if kept is None else _largest(values, kept, rank_by, whole)
        payload = encode(values, codec=self.codec, indices=indices)
        arrived = decode(payload, size=size, out=values if overwrite else None)
        return Sent(arrived.to(vector.device), len(payload), indices)


def _largest(values: Tensor, kept: int, rank_by: Tensor | None, whole: Tensor | None) -> Tensor:
    magnitudes = values if rank_by is None else rank_by.detach().cpu()
    if whole is not None:
        magnitudes = magnitudes.masked_fill(whole.cpu(), torch.inf)
    return top_k(magnitudes, kept)


@dataclass(frozen=True)
class Download:
    """What a client receives of the global vector ``state``."""

    state: Tensor
    received: Tensor
    num_bytes: int
    own: Tensor | None = None
    """The coordinates that the client may change and send, ascending; None: all."""


@dataclass(frozen=True)
class Update:
    """What arrives of a client's update."""

    vector: Tensor
    num_bytes: int = 0
    sent: Tensor | None = None
    """The coordinates that were sent, ascending; None: all."""
    residual: Tensor | None = None
    """With error feedback, what was not sent, for the client's next time."""
    num_parts: int = 1
    """Of how many bounded updates it is the sum."""
    num_within: int = 0
    """Where these were bounded before they were summed, how many of them the clip left alone."""


class Holding(Protocol):
    """Which part of the vector a client holds; ``size`` and ``num_bytes`` are the same always."""

    @property
    def size(self) -> int: ...

    @property
    def num_bytes(self) -> int: ...

    def of(self, vector: Tensor) -> Part: ...


@dataclass(frozen=True)
class Everything:
    """The whole of a vector of ``size`` coordinates."""

    size: int
    num_bytes: int = 0

    def of(self, vector: Tensor) -> Part:
        return Part()


@dataclass(frozen=True)
class Link:
    """The way to a client and back.

    Source: arXiv 2406.05233, algorithm 1 (FLASC), whose masks are the densities here: the state
    is masked for the way down, a client trains densely, and its update, relative to the masked
    state, is masked for the way up.
    """

    download_way: Direction = Direction()
    upload_way: Direction = Direction()
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
    """The part of the vector that clients of this link hold; None: all of it."""
    download_whole: Tensor | None = None
    """bool, the vector's size: what is sent down whatever its magnitude."""
    upload_whole: Tensor | None = None

    def num_bytes(self, size: int, round_number: int) -> tuple[int, int]:
        """Predict the bytes down and up for a vector of ``size``, whatever its values.

        The coordinates of ``download_whole`` and ``upload_whole`` must all be held.
        """
        held = self.holding or Everything(size)
        num_down = self._num_down(held.size, round_number, _count(self.download_whole))
        down = payload_size(held.size, _unless(num_down, held.size), self.download_way.codec)
        num_own = num_down if self.client_freeze else held.size
        num_up = self._num_up(held.size, num_own, round_number, _count(self.upload_whole))
        up = payload_size(num_own, _unless(num_up, num_own), self.upload_way.codec)
        return held.num_bytes + down, up

    def download(
        self, state: Tensor, round_number: int, *, mask_by: Tensor | None = None
    ) -> Download:
        """Send the state down; ``mask_by`` has the magnitudes of the state that froze the mask."""
        part = self.holding.of(state) if self.holding else Part()
        values, whole = _taken(state, part.indices), _taken(self.download_whole, part.indices)
        num_kept = self._num_down(values.numel(), round_number, _count(whole))
        sent = self.download_way.send(
            values, num_kept, rank_by=_taken(mask_by, part.indices), whole=whole
        )
        own = part.indices
        if self.client_freeze and sent.kept is not None:
            kept = sent.kept.to(state.device)
            own = kept if own is None else own[kept]
        received = _placed(sent.vector, part.indices, state.numel())
        return Download(state, received, sent.num_bytes + part.num_bytes, own)

    def upload(
        self, trained: Tensor, start: Download, round_number: int, residual: Tensor | None = None
    ) -> Update:
        """Turn a trained vector, in place, into the update that arrives.

        The update is relative to what the client received. If states are uploaded instead, it is
        what takes the global vector to the decoded state, so that their mean is the new state.
        """
        if not self.uploads_state:
            return self.upload_update(trained.sub_(start.received), start, round_number, residual)
        update = self.upload_update(trained, start, round_number, residual)
        own = slice(None) if start.own is None else start.own
        trained[own] -= start.state[own]
        return update

    def upload_update(
        self, update: Tensor, start: Download, round_number: int, residual: Tensor | None = None
    ) -> Update:
        """Turn an update (fp32, the vector's size), in place, into what arrives of it."""
        if residual is not None:
            update.add_(residual)
        values = _taken(update, start.own)
        whole = _taken(self.upload_whole, start.own)
        held = self.holding.size if self.holding else update.numel()
        num_kept = self._num_up(held, values.numel(), round_number, _count(whole))
        sent = self.upload_way.send(
            values, num_kept, whole=whole, overwrite=not self.error_feedback
        )
        rest = None
        if self.error_feedback:
            # What the client does not own now waits until it does again.
            rest = torch.zeros_like(update) if residual is None else residual.clone()
            rest[slice(None) if start.own is None else start.own] = values - sent.vector
        if start.own is not None:
            update.zero_()[start.own] = sent.vector
        elif sent.vector is not update:
            update.copy_(sent.vector)
        return Update(update, sent.num_bytes, _within(start.own, sent.kept), rest)

    def _num_down(self, held: int, round_number: int, num_whole: int) -> int:
        if self.server_freeze and round_number == 1:
            return held
        return self.download_way.num_kept(held, round_number, num_whole)

    def _num_up(self, held: int, own: int, round_number: int, num_whole: int) -> int:
        # The density is a share of what the client holds, of which it may own, and send, less.
        return min(own, self.upload_way.num_kept(held, round_number, num_whole))


def _taken(vector: Tensor | None, indices: Tensor | None) -> Tensor:
    if vector is None or indices is None:
        return vector  # type: ignore[return-value]  # None stays None
    return vector[indices.to(vector.device)]  # marks of what is sent whole are on the CPU


def _placed(values: Tensor, indices: Tensor | None, size: int) -> Tensor:
    if indices is None:
        return values
    vector = torch.zeros(size, device=values.device)
    vector[indices] = values
    return vector


def _within(own: Tensor | None, kept: Tensor | None) -> Tensor | None:
    if own is None or kept is None:
        return own if kept is None else kept
    return own[kept.to(own.device)]


def _count(marks: Tensor | None) -> int:
    return 0 if marks is None else int(marks.count_nonzero())


def _unless(count: int, size: int) -> int | None:
    return None if count == size else count
