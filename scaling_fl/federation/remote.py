"""Clients on other machines: downloads leave as letters, and replies come back as letters.

The server holds no data and no memory of such clients. It knows how many examples each has, and
the round of the last turn of each that counted, which the client's node remembers by that round.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from scaling_fl.core.json_text import finite, number
from scaling_fl.core.letters import INTEGERS, SUM, TRAFFIC, Letter
from scaling_fl.core.records import ClientReport
from scaling_fl.core.state import GlobalState, Tensors
from scaling_fl.federation.arrivals import NOT_SUMMABLE, Reply
from scaling_fl.federation.base import FACTORS, MOVED, send_base
from scaling_fl.federation.client import ClientProgress, Clients
from scaling_fl.federation.downloads import Downloads
from scaling_fl.federation.link import Download, Link, count_at
from scaling_fl.federation.scaffold import CONTROL
from scaling_fl.federation.sealed import SealedSum
from scaling_fl.methods.wire.codecs import Codec
from scaling_fl.methods.wire.direction import PLAIN, Payload

VERSION = 2
"""Of the letters: a server and its nodes must have the same."""
NODE_TURN = "node.turn"
"""The key under which the server remembers the round of a client's last turn that counted."""
CHOICE, PAYLOAD, BASE = "choice", "payload", "base"
"""The parts of letters; the control variate and what a merge needs have names of their own."""
NOTHING = Payload(0, 0, vector=torch.empty(0))
MOST_METRICS = 100
SHOWN = 160
"""Characters that are shown of what is wrong with an answer."""


class Post(Protocol):
    """Carries letters to the nodes that the clients are on."""

    def exchange(
        self, letters: Mapping[int, Letter], check: Callable[[], None]
    ) -> Iterator[tuple[int, Letter | str]]:
        """Send each client its letter, and yield the answers as they come.

        An answer is a letter or, where there is none, why. ``check`` is called often meanwhile; it
        may raise an exception to abandon the round.
        """


class RemoteClients(Clients):
    """All clients of a federation whose clients are on other machines.

    ``of_job`` are facts that every letter carries. ``oldest(round)`` is the first round that a job
    can still go back to: nodes forget what they remembered before.
    """

    post: Post
    of_job: Mapping[str, Any]
    oldest: Callable[[int], int]
    sealed: SealedSum | None = None
    """Takes the sum of the updates, where the server must not see each."""

    def train_each(
        self,
        mine: Sequence[int],
        downloads: Downloads,
        state: GlobalState,
        *,
        learning_rate: float,
        clip: float,
        shares: Mapping[int, float] | None = None,
        progress: ClientProgress | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[Reply]:
        """Have the clients of this worker trained on their nodes, in the round after ``state``.

        A client whose node is away, fails, or sends what it must not, is left out of the round, and
        its report says why.
        """
        number, carried = state.round + 1, dict[int, dict[str, bytes]]()
        letters = {}
        for client in mine:
            tier = self.tier_of[client]
            if tier not in carried:
                carried[tier] = _parts(downloads.sent(tier))
            parts, turn = carried[tier], turn_of(state.memory.clients.get(client, {}))
            base = self._base_for(state.memory.server, client, turn == state.round)
            facts = {
                "what": "train",
                "client": client,
                "round": number,
                "learning_rate": learning_rate,
                "turn": turn,
                "oldest": self.oldest(number),
                "base_as": FACTORS if base and base.size != _size_of(state, MOVED) else MOVED,
            }
            if self.groups:
                num_groups = len(self.groups.examples[client])
                drawn = self.groups.sample(num_groups, number, client, state.digest)
                facts |= {"groups": list(drawn), "clip": clip}
            if self.sealed:
                facts |= {
                    "share": (shares or {})[client],
                    "clip": finite(clip),
                    "size": state.vector.numel(),
                }
            parts = parts | ({BASE: bytes(base)} if base else {})
            letters[client] = Letter({**self.of_job, **facts}, parts)
        answers = self.post.exchange(letters, check)
        found = dict(answers) if self.sealed else {}
        traffic = self._unsealed(found.pop(SUM, ""))
        for client, answer in found.items() if self.sealed else answers:
            sent = downloads.sent(self.tier_of[client])
            reply = self._reply(letters[client], answer, sent)
            if client in traffic:
                down, up = traffic[client]
                report = replace(reply.report, download_bytes=down, upload_bytes=up)
                reply = replace(reply, report=report)
            yield reply

    def _unsealed(self, total: Letter | str) -> dict[int, tuple[int, int]]:
        """Put the sum of all by, and return the bytes (down, up) of each client."""
        if not (self.sealed and isinstance(total, Letter)):
            return {}
        self.sealed.put(total.parts[INTEGERS])
        return {client: (down, up) for client, down, up in total.facts[TRAFFIC]}

    def _base_for(self, memory: Tensors, client: int, had_last_turn: bool) -> Payload | None:
        """As ``send_base``, but a client whose last turn did not count may not have the base."""
        moved = memory.get(MOVED)
        if moved is not None and not had_last_turn:
            return PLAIN.send(moved, moved.numel())
        return send_base(memory, client)

    def _reply(self, asked: Letter, answer: Letter | str, sent: Download) -> Reply:
        client = int(asked.facts["client"])
        tier = self.tier_of[client]
        report = ClientReport(
            round=sent.round_number,
            client=client,
            tier=tier,
            num_examples=self.num_examples(client),
            metrics={"loss": math.nan},
            download_bytes=asked.num_bytes,
            upload_bytes=0,
            seconds=0.0,
        )
        if isinstance(answer, str):
            return self._left_out(report, answer, asked)
        try:
            return self._read(answer, report, sent, asked)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            text = f"its node sent what it must not: {str(error)[:SHOWN]}"
            return self._left_out(report, text, asked)

    def _read(self, answer: Letter, report: ClientReport, sent: Download, asked: Letter) -> Reply:
        """Read an answer, of which nothing is believed."""
        link, facts = self.tiers[report.tier].link, answer.facts
        if failure := failure_of(answer):
            return self._left_out(report, failure, asked)
        about = (facts["client"], facts["round"])
        if about != (report.client, report.round):
            raise ValueError(f"an answer about client and round {about}")
        wanted = {} if self.sealed else self._wanted(link, sent)
        metrics = _metrics(facts["metrics"])
        if not math.isfinite(loss := metrics["loss"]):
            return self._left_out(report, f"its loss is {loss}", asked)
        if facts.get("diverged"):
            return self._left_out(report, NOT_SUMMABLE, asked)
        if answer.parts.keys() != wanted.keys():
            raise ValueError(f"the parts {', '.join(answer.parts)}, not {', '.join(wanted)}")
        payloads = {}
        for name, (size, num_bytes, own) in wanted.items():
            part = answer.parts[name]
            if len(part) != num_bytes:
                raise ValueError(f"{len(part)} bytes of {name}, not {num_bytes}")
            payloads[name] = Payload.from_bytes(part, size, own)
        num_examples = report.num_examples
        if self.groups:  # it depends on the groups' sizes and on how often each example was seen
            num_examples = _count(facts, "num_examples", 2**53)
        report = replace(
            report,
            num_examples=num_examples,
            metrics=metrics,
            upload_bytes=answer.num_bytes,
            seconds=float(_real(facts["seconds"]) or 0.0),
        )
        if self.sealed:
            report = replace(report, update_norm=math.nan)
            return Reply(
                report=report, payload=NOTHING, num_units=self._num_units(asked), is_sealed=True
            )
        memory = {NODE_TURN: torch.tensor([float(report.round)])}
        num_units = self._num_units(asked)
        return Reply(
            report=report,
            payload=payloads.pop(PAYLOAD),
            extras=payloads,
            memory=memory,
            num_units=num_units,
            num_unclipped=_count(facts, "num_unclipped", num_units) if self.groups else 0,
        )

    def _left_out(self, report: ClientReport, failure: str, asked: Letter) -> Reply:
        num_units = self._num_units(asked)
        return Reply(report=replace(report, failure=failure), payload=NOTHING, num_units=num_units)

    def _num_units(self, asked: Letter) -> int:
        return len(asked.facts["groups"]) if self.groups else 1

    def _wanted(self, link: Link, sent: Download) -> dict[str, tuple[int, int, Codec | None]]:
        """Tell the size of the vector, the bytes and the own codec of every part of an answer."""
        sendable = sent.sendable(link)
        size = link.size if sendable is None else len(sendable)
        num_sent = link.num_up(size, sent.round_number, count_at(link.always_up, sendable)[1])
        own = link.up.codec if isinstance(link.up.codec, Codec) else None
        wanted = {PAYLOAD: (size, link.up.num_bytes(size, num_sent), own)}
        if link.controls:
            wanted[CONTROL] = (link.size, PLAIN.num_bytes(link.size, link.size), None)
        for name, extra in self.statistics.by_name.items():
            wanted[name] = (extra.size, PLAIN.num_bytes(extra.size, extra.size), None)
        return wanted


_FAILED = "its node failed; the log of the node says why"
_FAILURES = {
    "forgotten": "its node no longer has what the client remembered",
    "refused": "its node refuses the settings or its data; the log of the node says why",
    "unsafe": "its node refuses to show more than a sum; the log of the node says why",
}
"""What a node may say of a failure: never a text of its own, which could tell of its data."""


def failure_of(answer: Letter) -> str | None:
    """Say in words of the server what a node says of its failure; None: it has not failed."""
    failure = answer.facts.get("failure")
    return _FAILURES.get(failure, _FAILED) if failure else None


def _parts(sent: Download) -> dict[str, bytes]:
    """Return the bytes of a download, which are those that are counted."""
    parts = {CHOICE: sent.choice, PAYLOAD: bytes(sent.payload)}
    if sent.control:
        parts[CONTROL] = bytes(sent.control)
    return {name: part for name, part in parts.items() if part}


def turn_of(memory: Tensors) -> int:
    """Return the round of a client's last turn that counted, by what the server knows of it.

    0: it had none, or remembers none.
    """
    turn = memory.get(NODE_TURN)
    return 0 if turn is None else int(turn)


def _size_of(state: GlobalState, name: str) -> int:
    found: Tensor | None = state.memory.server.get(name)
    return 0 if found is None else found.numel()


def _metrics(found: Mapping[str, Any]) -> dict[str, float]:
    """Read a client's metrics, whose names are the task's."""
    if len(found) > MOST_METRICS or not all(name.isidentifier() for name in found):
        raise ValueError(f"{len(found)} metrics, or one without a name")
    if reserved := found.keys() & {each.name for each in fields(ClientReport)}:
        raise ValueError(f"a metric with the name {min(reserved)}")
    return {name: number(_real(value)) for name, value in found.items()}


def _real(value: Any) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError(f"{value!r} in place of a number")
    return value


def _count(facts: Mapping[str, Any], name: str, most: int) -> int:
    value = facts[name]
    if not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"{name}={value!r}, not a number up to {most}")
    return value
