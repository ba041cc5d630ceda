"""A worker's way to the nodes, where another process talks to them: letters over a socket.

That process names the socket in the environment. A call is a letter, and letters follow it. For
each answer, a letter says whom it is from and, if there is none, why; the answer follows.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Client, Connection

from scaling_fl.core.letters import Letter

ADDRESS = "SCALING_FL_OFFICE"
"""The variable with the path of the socket."""
SECURE = "SCALING_FL_OFFICE_SECURE"
"""The variable that is set where the sum of the updates alone arrives."""
_POLL_SECONDS = 0.2


class SocketOffice:
    """Carries letters to the nodes by way of the process that listens at a socket."""

    def __init__(self, path: str) -> None:
        self._connection = Client(path, "AF_UNIX")
        facts = Letter.from_bytes(self._connection.recv_bytes()).facts
        self.num_nodes, self.owns_data = int(facts["num_nodes"]), bool(facts["owns_data"])
        self.owns_tests = bool(facts["owns_tests"])
        self.is_secure = bool(facts["is_secure"])

    def describe(self, letter: Letter) -> list[Letter | str]:
        send(self._connection, Letter({"call": "describe", "count": 1}), letter)
        return [answer for _, answer in self._answers(self.num_nodes, lambda: None)]

    def exchange(
        self, letters: Mapping[int, Letter], check: Callable[[], None]
    ) -> Iterator[tuple[int, Letter | str]]:
        send(self._connection, Letter({"call": "exchange", "count": len(letters)}))
        for client, letter in letters.items():
            send(self._connection, Letter({"to": client}), letter)
        has_sum = self.is_secure and any(each.facts["what"] == "train" for each in letters.values())
        return self._answers(len(letters) + has_sum, check)

    def _answers(self, count: int, check: Callable[[], None]) -> Iterator[tuple[int, Letter | str]]:
        for _ in range(count):
            while not self._connection.poll(_POLL_SECONDS):
                check()
            facts = Letter.from_bytes(self._connection.recv_bytes()).facts
            answer: Letter | str = str(facts["why"])
            if not answer:
                answer = Letter.from_bytes(self._connection.recv_bytes())
            yield int(facts["from"]), answer


def open_office() -> SocketOffice | None:
    """Return the office that the environment names; None: the clients are here."""
    path = os.environ.get(ADDRESS)
    return SocketOffice(path) if path else None


def send(connection: Connection, *letters: Letter) -> None:
    for letter in letters:
        connection.send_bytes(letter.to_bytes())
