"""The replies of this worker's clients, as they arrive one after the other."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from scaling_fl.core.exact_sum import LIMIT, is_summable
from scaling_fl.core.records import ClientReport
from scaling_fl.core.state import Tensors
from scaling_fl.federation.scaffold import CONTROL
from scaling_fl.methods.merging.merge import Update
from scaling_fl.methods.wire.direction import Payload
from scaling_fl.methods.wire.payloads import PayloadError


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A client's report and payload, and what the client must remember for its next turn."""

    report: ClientReport
    payload: Payload
    extras: Mapping[str, Payload] = field(default_factory=dict)
    """The other payloads that the merge needs, by name."""
    memory: Tensors = field(default_factory=dict)
    num_units: int = 1
    """The number of privacy units in the update: 1 client, or the number of its groups."""
    num_unclipped: int = 0
    """The number of groups with a norm of at most the clip, when the client clips its groups."""
    is_sealed: bool = False
    """Whether the update is in a sum that comes apart, and there is no payload."""


NOT_SUMMABLE = f"its update is not finite or has a coordinate beyond {LIMIT:g}"
"""Why a client whose loss is finite is left out."""

Decode = Callable[[Reply, Tensor], tuple[Tensor, Tensor | None]]
"""(reply, memory to write to) -> the update and the coordinates that were sent."""


class Arrivals:
    """The updates of a round, in as many passes as the merge needs.

    A client is left out when its loss or update is not finite, when its update is too large for a
    sum, or when its reply says so: its report says why, and no merge sees the update. ``hear`` is
    called once with each of the others, and may keep a part of it. ``buffers`` are for updates that
    are kept as they arrive, and grow by what is missing: the first use of new memory takes longer
    than to copy an update.
    """

    def __init__(
        self,
        replies: Iterable[Reply],
        shares: Mapping[int, float],
        decode: Decode,
        scratch: Tensor,
        buffers: list[Tensor],
        hear: Callable[[Update], None],
    ) -> None:
        self._replies, self._shares, self._decode = iter(replies), shares, decode
        self._scratch, self._hear = scratch, hear
        self._buffers, self._num_used = buffers, 0
        self._kept: list[Update | Reply] | None = None
        """The usable updates that arrived as they are, and the replies of the other ones."""
        self.reports: list[ClientReport] = []
        self.memories: dict[int, Tensors] = {}
        self.num_units = self.num_unclipped = 0
        self.seconds = 0.0
        """The time to train the clients and to encode and decode their payloads."""

    def once(self) -> Iterator[Update]:
        """Yield the updates while the clients train, and keep none of them."""
        for _, update in self._arrive(self._scratch, keep=False):
            yield update

    def again(self) -> Iterator[Update]:
        """Yield the updates; keep the payloads, and decode them again in every further pass."""
        vector = self._buffer()
        for group in self._groups(vector):
            for update in group:
                kept = update.vector is not vector
                yield update._replace(vector=vector.copy_(update.vector)) if kept else update

    def together(self) -> Iterator[Sequence[Update]]:
        """Yield the updates; all that need no decoding come together after the first pass."""
        return self._groups(self._buffer())

    def _groups(self, vector: Tensor) -> Iterator[Sequence[Update]]:
        """Decode into ``vector`` what is not kept as it arrived."""
        if self._kept is None:
            self._kept = []
            for reply, update in self._arrive(vector, keep=True):
                self._kept.append(update if self._needs_no_decoding(reply) else reply)
                yield (update,)
            return
        if as_arrived := [kept for kept in self._kept if isinstance(kept, Update)]:
            yield as_arrived
        for kept in self._kept:
            if isinstance(kept, Reply):
                yield (self._update(kept, vector),)

    def _buffer(self) -> Tensor:
        """Return memory for an update: the scratch buffer, which later passes must not change."""
        return self._scratch if self._kept is None else torch.empty_like(self._scratch)

    def _next_buffer(self) -> Tensor:
        """Return memory for an update that is kept as it arrived."""
        if self._num_used == len(self._buffers):
            self._buffers.append(torch.empty_like(self._scratch))
        self._num_used += 1
        return self._buffers[self._num_used - 1]

    def _needs_no_decoding(self, reply: Reply) -> bool:
        whole = reply.payload.vector is not None and reply.payload.size == self._scratch.numel()
        return whole and self._scratch.device.type == "cpu" and not reply.extras

    def _arrive(self, out: Tensor, *, keep: bool) -> Iterator[tuple[Reply, Update]]:
        while True:
            began = time.perf_counter()
            reply = next(self._replies, None)
            if reply is None:
                return
            as_arrived = keep and self._needs_no_decoding(reply)
            if keep and not as_arrived:
                extras = {name: payload.encoded() for name, payload in reply.extras.items()}
                reply = replace(reply, payload=reply.payload.encoded(), extras=extras)
            update, report = self._received(reply, out, as_arrived=as_arrived)
            self.reports.append(report)
            # Clients that are left out also count: the count must not depend on any client's data.
            self.num_units += reply.num_units
            self.seconds += time.perf_counter() - began
            if update and report.failure is None:
                self.memories[report.client] = reply.memory
                self.num_unclipped += reply.num_unclipped
                self._hear(update)
                yield reply, update

    def _received(
        self, reply: Reply, out: Tensor, *, as_arrived: bool
    ) -> tuple[Update | None, ClientReport]:
        """Decode an update, and say in its report whether it is left out; None: there is none."""
        if reply.is_sealed or reply.report.failure is not None:
            return None, reply.report
        try:
            update = self._update(reply, self._next_buffer() if as_arrived else out)
        except PayloadError as error:
            return None, replace(reply.report, failure=f"its payload is damaged: {error}")
        return update, _checked(reply.report, update)

    def _update(self, reply: Reply, out: Tensor) -> Update:
        report = reply.report
        vector, sent = self._decode(reply, out)
        extras = {name: payload.decode().to(out.device) for name, payload in reply.extras.items()}
        return Update(report.client, report.tier, self._shares[report.client], vector, sent, extras)


def _checked(report: ClientReport, update: Update) -> ClientReport:
    """Add to a report the norm of the update and, if the client is left out, the reason."""
    vector, control = update.vector, update.extras.get(CONTROL)
    norm, loss, failure = float(torch.linalg.vector_norm(vector)), report.metrics["loss"], None
    if not math.isfinite(loss):
        failure = f"its loss is {loss}"
    # No coordinate is larger than the norm, so a small norm makes this pass unnecessary.
    elif not norm < LIMIT / 2 and not is_summable(vector):
        failure = NOT_SUMMABLE
    elif control is not None and not is_summable(control):
        failure = f"its control variate is not finite or changes by more than {LIMIT:g}"
    elif wrong := [name for name, extra in update.extras.items() if not is_summable(extra)]:
        failure = f"what it sent for the merge ({wrong[0]}) is not finite"
    return replace(report, update_norm=norm, failure=failure)
