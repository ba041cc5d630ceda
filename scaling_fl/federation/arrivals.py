"""What arrives of this worker's clients, one reply after the other."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from scaling_fl.core.exact_sum import LIMIT, is_summable
from scaling_fl.core.records import ClientReport
from scaling_fl.core.state import Tensors
from scaling_fl.methods.merging.merge import Update
from scaling_fl.methods.wire.direction import Payload


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a client sends back, and what it remembers for its next turn."""

    report: ClientReport
    payload: Payload
    extras: Mapping[str, Payload] = field(default_factory=dict)
    """What a merge needs beside the update, by name."""
    memory: Tensors = field(default_factory=dict)
    num_units: int = 1
    """How many units of privacy took part: the client itself, or so many of its groups."""
    num_within_clip: int = 0
    """Where the client has bounded them itself: how many of them the clip left alone."""


Decode = Callable[[Reply, Tensor], tuple[Tensor, Tensor | None]]
"""(reply, memory to write to) -> the update and the coordinates that were sent."""


class Arrivals:
    """The updates of a round, in the passes that a merge asks for.

    A client whose loss or update is not finite, or whose update is too large for a sum, is left
    out: its report says why, and no merge sees it.
    """

    def __init__(
        self,
        replies: Iterable[Reply],
        shares: Mapping[int, float],
        decode: Decode,
        scratch: Tensor,
    ) -> None:
        self._replies, self._shares, self._decode = iter(replies), shares, decode
        self._scratch = scratch
        self._usable: list[Reply] | None = None
        self.reports: list[ClientReport] = []
        self.memories: dict[int, Tensors] = {}
        self.num_units = self.num_within_clip = 0
        self.seconds = 0.0
        """Time that the clients took to train and their payloads to be encoded and decoded."""

    def once(self) -> Iterator[Update]:
        """Yield the updates while the clients train; nothing is kept."""
        for _, update in self._arrive(keep=False):
            yield update

    def again(self) -> Iterator[Update]:
        """Yield the updates; the payloads are kept and decoded anew in every further pass."""
        if self._usable is None:
            self._usable = []
            for reply, update in self._arrive(keep=True):
                self._usable.append(reply)
                yield update
            return
        vector = torch.empty_like(self._scratch)
        for reply in self._usable:
            yield self._update(reply, vector)

    def _arrive(self, *, keep: bool) -> Iterator[tuple[Reply, Update]]:
        while True:
            began = time.perf_counter()
            reply = next(self._replies, None)
            if reply is None:
                return
            if keep:
                extras = {name: payload.kept() for name, payload in reply.extras.items()}
                reply = replace(reply, payload=reply.payload.kept(), extras=extras)
            update = self._update(reply, self._scratch)
            report = _checked(reply.report, update.vector)
            self.reports.append(report)
            self.num_units += reply.num_units  # those left out, too: no count depends on who it is
            self.seconds += time.perf_counter() - began
            if report.failure is None:
                self.memories[report.client] = reply.memory
                self.num_within_clip += reply.num_within_clip
                yield reply, update

    def _update(self, reply: Reply, out: Tensor) -> Update:
        client = reply.report.client
        vector, sent = self._decode(reply, out)
        extras = {name: payload.decode().to(out.device) for name, payload in reply.extras.items()}
        return Update(client, self._shares[client], vector, sent, extras)


def _checked(report: ClientReport, update: Tensor) -> ClientReport:
    """Complete a client's report by the norm of its update and why it is left out, if it is."""
    norm, loss, failure = float(torch.linalg.vector_norm(update)), report.metrics["loss"], None
    if not math.isfinite(loss):
        failure = f"its loss is {loss}"
    # No coordinate is larger than the norm, so a small norm saves a pass over the vector.
    elif not norm < LIMIT / 2 and not is_summable(update):
        failure = f"its update is not finite or has a coordinate beyond {LIMIT:g}"
    return replace(report, update_norm=norm, failure=failure)
