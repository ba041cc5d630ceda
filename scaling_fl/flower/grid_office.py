"""The office that carries letters over Flower's grid, to nodes that are known by their number.

Flower gives a node another id in every simulation, and lists the ids in any order. A node's number
is the ``partition-id`` of its configuration, which stays the same.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

from scaling_fl.core.errors import UserError
from scaling_fl.core.letters import Letter
from scaling_fl.flower.content import content_of, letter_of

QUERY, TRAIN = "query", "train"
"""Flower's types of messages. To train and to evaluate, a letter asks by Flower's words."""
WHO = Letter({"what": "who"})
_SHORTEST_PAUSE, _POLL_SECONDS = 0.01, 0.2
_ANSWERS = {
    1: "Flower does not know the reason",
    2: "its node failed; the log of the node says why",
    3: "its node did not answer in time",
    5: "its node was lost",
}
"""By Flower's code. What Flower says in words may be the text of an exception on the node."""
AWAY = "its node is away"


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long nodes are waited for, in seconds."""

    nodes: float = 120.0
    """For all of them to come, before the first round."""
    round: float = 3600.0
    """For the answers of a round."""


class GridOffice:
    """Carries letters to the nodes of a grid."""

    is_secure = False

    def __init__(self, grid: Grid, patience: Patience, check: Callable[[], None]) -> None:
        """Wait for all nodes.

        Raises:
            UserError: fewer came than there are partitions, or two have one number.
        """
        self._grid, self._patience, self._check = grid, patience, check
        self._ids: dict[int, int] = {}
        self._seen: dict[int, Mapping[str, object]] = {}
        self.num_nodes = 0
        self._wait_for_nodes()
        self.num_nodes = len(self._ids)
        self.owns_data = self._agreed("owns_data", "data of their own (train-path)")
        self.owns_tests = self._agreed("owns_tests", "test data of their own (test-path)")

    def describe(self, letter: Letter) -> list[Letter | str]:
        letters = dict.fromkeys(self._ids, letter)
        found = dict(self._answers(letters, self._ids, QUERY, self._check))
        return [found[partition] for partition in sorted(self._ids)]

    def exchange(
        self, letters: Mapping[int, Letter], check: Callable[[], None]
    ) -> Iterator[tuple[int, Letter | str]]:
        self._find_nodes(check)
        place_of = {client: client % self.num_nodes for client in letters}
        here = {client: self._ids[n] for client, n in place_of.items() if n in self._ids}
        for client in letters.keys() - here.keys():
            yield client, AWAY
        asked = {client: letters[client] for client in here}
        kind = next((str(letter.facts["what"]) for letter in asked.values()), TRAIN)
        yield from self._answers(asked, here, kind, check)

    def _agreed(self, name: str, what: str) -> bool:
        found = {bool(facts[name]) for facts in self._seen.values()}
        if len(found) > 1:
            raise UserError(f"all nodes must have {what}, or none.")
        return found.pop()

    def _wait_for_nodes(self) -> None:
        deadline = time.monotonic() + self._patience.nodes
        while True:
            self._find_nodes(self._check)
            wanted = max((int(str(f["num_partitions"])) for f in self._seen.values()), default=1)
            if len(self._ids) == wanted and set(self._ids) == set(range(wanted)):
                return
            if time.monotonic() > deadline:
                missing = sorted(set(range(wanted)) - set(self._ids)) or "none"
                raise UserError(
                    f"{wanted} node{'s' * (wanted > 1)} must be there before the first round, and "
                    f"after {self._patience.nodes:g} s node {missing} is missing; start the nodes, "
                    "or raise wait-seconds."
                )
            self._check()
            time.sleep(_POLL_SECONDS)

    def _find_nodes(self, check: Callable[[], None]) -> None:
        """Ask nodes that have come since the last time for their numbers."""
        present = set(self._grid.get_node_ids())
        new = present - self._seen.keys()
        asked = dict.fromkeys(new, WHO)
        for node, answer in self._answers(asked, {node: node for node in new}, QUERY, check):
            if isinstance(answer, Letter):
                self._seen[node] = answer.facts
        numbers = {node: int(str(f["partition"])) for node, f in self._seen.items()}
        self._ids = {numbers[node]: node for node in sorted(self._seen.keys() & present)}

    def _answers(
        self,
        letters: Mapping[int, Letter],
        node_of: Mapping[int, int],
        kind: str,
        check: Callable[[], None],
    ) -> Iterator[tuple[int, Letter | str]]:
        """Send letters and yield what comes back, by the keys of the letters."""
        # A node that comes late does not begin what nobody waits for any more.
        ttl = self._patience.round
        messages = [
            Message(content_of(letter), node_of[key], kind, ttl=ttl)
            for key, letter in letters.items()
        ]
        # All at once: what several of them hold, as a download, is handed to Flower only once.
        identities = list(self._grid.push_messages(messages)) or [""] * len(messages)
        del messages
        waiting = {}
        for key, identity in zip(letters, identities, strict=True):
            if identity:
                waiting[identity] = key
            else:
                yield key, _ANSWERS[5]
        deadline, pause = time.monotonic() + self._patience.round, _SHORTEST_PAUSE
        while waiting:
            check()
            replies = list(self._grid.pull_messages(list(waiting)))
            # What trains for milliseconds is asked for often, and what takes minutes seldom.
            pause = _SHORTEST_PAUSE if replies else min(2 * pause, _POLL_SECONDS)
            for reply in replies:
                key = waiting.pop(reply.metadata.reply_to_message_id)
                yield key, _read(reply)
            if time.monotonic() > deadline:
                late = f"its node did not answer within {self._patience.round:g} s"
                yield from ((key, late) for key in waiting.values())
                return
            if waiting:
                time.sleep(pause)


def _read(reply: Message) -> Letter | str:
    if reply.has_error():
        return _ANSWERS.get(reply.error.code, f"Flower's error {reply.error.code}")
    try:
        return letter_of(reply.content)
    except ValueError as error:
        return f"its node sent what it must not: {error}"
