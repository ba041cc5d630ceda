"""A node's end: a letter comes, one of the node's clients has its turn, and a letter goes back."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scaling_fl.core.exact_sum import ExactSum, is_summable
from scaling_fl.core.letters import Letter
from scaling_fl.core.state import GlobalState, Memory
from scaling_fl.federation.arrivals import Reply
from scaling_fl.federation.base import MOVED, product
from scaling_fl.federation.client import Clients
from scaling_fl.federation.client_end import ClientEnd
from scaling_fl.federation.link import Download, Link
from scaling_fl.federation.remote import BASE, CHOICE, PAYLOAD
from scaling_fl.federation.scaffold import CONTROL
from scaling_fl.federation.server_end import ServerEnd
from scaling_fl.methods.pairs import Pair
from scaling_fl.methods.wire.codecs import Codec
from scaling_fl.methods.wire.direction import PLAIN, Payload


class Forgotten(Exception):
    """The node no longer has what a client remembered of a turn."""


class Remembering(Protocol):
    """Where a node keeps what its clients remember, by client and round."""

    def load(self, client: int, round_number: int) -> dict[str, Tensor] | None:
        """Return what a client remembers of its turn in a round; None: nothing is known of it."""

    def keep(self, client: int, round_number: int, tensors: dict[str, Tensor]) -> None:
        """Keep what a client remembers of its turn in a round, and nothing of later rounds."""

    def forget(self, client: int, oldest: int) -> None:
        """Drop what a job that goes back to round ``oldest`` or a later one cannot need."""


class NodeEnd:
    """Trains the clients of a node as the server's letters say."""

    def __init__(
        self,
        clients: Clients,
        device: torch.device,
        pairs: list[Pair],
        bound: Callable[[Tensor, float], object] | None = None,
        first: Tensor | None = None,
    ) -> None:
        """``bound(update, clip)`` bounds the update of a client whose unit of privacy it is.

        ``first`` (fp32, the vector's size) has what clients keep before their first turns.
        """
        self._clients, self._device, self._pairs = clients, device, pairs
        self._bound, self._first = bound, first
        self._groups = clients.groups

    def answer(self, letter: Letter, memories: Remembering) -> Letter:
        """Have a client trained, from what it remembers.

        Raises:
            Forgotten: the client remembers no turn of that round.
            ValueError: the letter is none of this federation.
        """
        return _answer(self._trained(letter, memories))

    def answer_apart(
        self, letter: Letter, memories: Remembering
    ) -> tuple[Letter, NDArray[np.int64] | None]:
        """Have a client trained, and return its update apart, as an exact sum holds its term.

        None in place of the update where it cannot be summed.
        """
        reply, facts = self._trained(letter, memories), letter.facts
        link = self._clients.tiers[reply.report.tier].link
        state = torch.empty(link.size, device=self._device)
        update, _ = ServerEnd(link).update(reply.payload, _download(letter, link), state)
        said = Letter(_facts(reply))
        if not (math.isfinite(reply.report.metrics["loss"]) and is_summable(update)):
            return Letter({**said.facts, "diverged": True}), None
        update = update.clone()
        if self._bound:
            self._bound(update, _clip(facts))
        found = ExactSum(link.size, self._device)
        found.add(update, float(facts["share"]))
        return said, found.integers.cpu().numpy()

    def _trained(self, letter: Letter, memories: Remembering) -> Reply:
        facts = letter.facts
        client, number, turn = int(facts["client"]), int(facts["round"]), int(facts["turn"])
        link = self._clients.tiers[self._clients.tier_of[client]].link
        memory = memories.load(client, turn) if turn else {}
        if memory is None:
            raise Forgotten
        memory = {name: tensor.to(self._device) for name, tensor in memory.items()}
        moved = self._moved(letter, memory.pop(MOVED, None))
        of_base = {} if moved is None else {MOVED: moved}
        self._clients.hold_base(GlobalState(torch.empty(0), memory=Memory(of_base)))
        received = ClientEnd(link).receive(_download(letter, link), self._device, self._first)
        received = replace(received, num_bytes=sum(map(len, letter.parts.values())))
        if self._groups:
            drawn = [int(group) for group in facts["groups"]]
            self._clients.groups = replace(self._groups, sample=lambda *_: drawn)
        reply = self._clients.train(
            received,
            client,
            round_number=number,
            learning_rate=float(facts["learning_rate"]),
            memory=memory,
            clip=_clip(facts),
        )
        memories.keep(client, number, {**reply.memory, **of_base})
        memories.forget(client, int(facts["oldest"]))
        return reply

    def _moved(self, letter: Letter, before: Tensor | None) -> Tensor | None:
        """Return what the base has moved by: as it came, or by the factors of the last move."""
        part = letter.parts.get(BASE)
        if part is None:
            return before
        if letter.facts["base_as"] == MOVED:
            size = sum(pair.shape[0] * pair.shape[1] for pair in self._pairs)
            return Payload.from_bytes(part, size).decode().to(self._device)
        dense = self._dense(part)
        return dense if before is None else dense + before

    def _dense(self, part: bytes) -> Tensor:
        """Multiply the factors of a move (see ``Move``), as the server did."""
        widths = sum(sum(pair.shape) for pair in self._pairs)
        size = _size_of_plain(part)
        factors, rank = Payload.from_bytes(part, size).decode(), size // widths
        found, begin = [], 0
        for pair in self._pairs:
            height, width = pair.shape
            left = factors[begin : begin + height * rank].view(height, rank)
            begin += height * rank
            right = factors[begin : begin + rank * width].view(rank, width)
            begin += rank * width
            found.append(product(left, right))
        return torch.cat(found).to(self._device)


def _size_of_plain(part: bytes) -> int:
    """Tell how many coordinates a plain payload of this length has."""
    return (len(part) - PLAIN.num_bytes(0, 0)) // 4


def _download(letter: Letter, link: Link) -> Download:
    """Read the download that a letter carries.

    Raises:
        PayloadError: its payloads are not of this link.
    """
    number = int(letter.facts["round"])
    choice = letter.parts.get(CHOICE, b"")
    where = link.down_coordinates(choice, number)
    size = link.size if where is None else len(where)
    own = link.down.codec if isinstance(link.down.codec, Codec) else None
    control = letter.parts.get(CONTROL)
    return Download(
        choice,
        Payload.from_bytes(letter.parts[PAYLOAD], size, own),
        number,
        None if control is None else Payload.from_bytes(control, link.size),
    )


def _clip(facts: Mapping[str, Any]) -> float:
    clip = facts.get("clip")
    return math.inf if clip is None else float(clip)


def _facts(reply: Reply) -> dict[str, Any]:
    report = reply.report
    return {
        "client": report.client,
        "round": report.round,
        "metrics": report.metrics,
        "seconds": report.seconds,
        "num_examples": report.num_examples,
        "num_unclipped": reply.num_unclipped,
    }


def _answer(reply: Reply) -> Letter:
    facts = _facts(reply)
    sent: Mapping[str, Payload] = {PAYLOAD: reply.payload, **reply.extras}
    try:
        return Letter(facts, {name: bytes(payload) for name, payload in sent.items()})
    except ValueError:  # what is not finite has no encoding
        return Letter({**facts, "diverged": True})
