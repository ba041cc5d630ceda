"""The server's side of secure sums: four messages to every client of a round, and one sum."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from scaling_fl.core.letters import INTEGERS, SUM, Letter
from scaling_fl.flower.secure_sum import Integers, Refused, threshold, unmask

if TYPE_CHECKING:
    from scaling_fl.composition.remote import Office

KEYS, SHARES, MASKED, REVEAL = "keys", "shares", "masked", "reveal"


class SecureOffice:
    """Carries letters as the office inside does, but learns the sum of the updates alone.

    Beside the answers of the clients, which have no update, ``exchange`` yields the sum as int64
    (modulo 2**64), or why there is none.
    """

    is_secure = True

    def __init__(self, inside: "Office") -> None:
        self._inside = inside
        self.num_nodes, self.owns_data = inside.num_nodes, inside.owns_data
        self.owns_tests = inside.owns_tests

    def describe(self, letter: Letter) -> list[Letter | str]:
        return self._inside.describe(letter)

    def exchange(
        self, letters: Mapping[int, Letter], check: Callable[[], None]
    ) -> Iterator[tuple[int, Letter | str]]:
        if not letters:
            return
        if any(letter.facts["what"] != "train" for letter in letters.values()):
            yield from self._inside.exchange(letters, check)
            return
        round = _SecureRound(self._inside, letters, check)
        try:
            total = round.run()
        except Refused as error:
            why = f"there is no sum: {error}"
            yield from ((client, round.failures.get(client, why)) for client in letters)
            yield SUM, why
            return
        for client in letters:
            yield client, round.failures.get(client) or round.answers[client]
        yield SUM, Letter({}, {INTEGERS: total.tobytes()})


class _SecureRound:
    def __init__(
        self, office: "Office", letters: Mapping[int, Letter], check: Callable[[], None]
    ) -> None:
        self._office, self._letters, self._check = office, letters, check
        first = next(iter(letters.values())).facts
        self._context = context_of(first)
        self._size = int(first["size"])
        self.failures: dict[int, str] = {}
        self.answers: dict[int, Letter] = {}

    def run(self) -> Integers:
        """Ask in four turns, and return the sum of those that answered the first three.

        Raises:
            Refused: too few clients are left.
        """
        wanted: list[int] = list(self._letters)
        keys = {c: a.facts[KEYS] for c, a in self._ask(wanted, KEYS, {}).items()}
        self._need(keys, len(wanted))
        peers = [[client, *found] for client, found in sorted(keys.items())]
        shares = {
            client: dict(answer.facts[SHARES])
            for client, answer in self._ask(list(keys), SHARES, {"peers": peers}).items()
        }
        self._need(shares, len(keys))
        total = self._masked_sum(shares)
        survivors = sorted(self.answers)
        self._need(survivors, len(keys))
        asked = self._ask(survivors, REVEAL, {"survivors": survivors})
        revealed = {client: dict(answer.facts[REVEAL]) for client, answer in asked.items()}
        # Whoever sent its vector is in the sum, whether it went on or not.
        for client in survivors:
            self.failures.pop(client, None)
        try:
            unmask(total, self._context, keys, survivors, list(shares), revealed)
        except (KeyError, ValueError, TypeError) as error:
            raise Refused("a client revealed what is no share") from error
        return total

    def _masked_sum(self, shares: Mapping[int, Mapping[int, str]]) -> Integers:
        total = np.zeros(self._size, np.int64)
        letters = {}
        for client in shares:
            received = [[other, shares[other][client]] for other in shares if other != client]
            letter = self._letters[client]
            facts = {**letter.facts, "secure": MASKED, "received": received}
            letters[client] = Letter(facts, letter.parts)
        for client, answer in self._office.exchange(letters, self._check):
            vector = self._vector(client, answer)
            if vector is not None and isinstance(answer, Letter):
                total += vector
                self.answers[client] = Letter(answer.facts)
        return total

    def _vector(self, client: int, answer: Letter | str) -> Integers | None:
        """Return the masked vector of an answer; None: the client has none to add."""
        if isinstance(answer, str):
            self.failures[client] = answer
        elif "failure" in answer.facts or answer.facts.get("diverged"):
            self.failures[client] = _why(answer)
        elif len(answer.parts.get(INTEGERS, b"")) != 8 * self._size:
            self.failures[client] = "its node sent what it must not: a vector of another size"
        else:
            return np.frombuffer(answer.parts[INTEGERS], dtype="<i8")
        return None

    def _ask(self, clients: list[int], what: str, more: Mapping[str, Any]) -> dict[int, Letter]:
        """Send clients a letter without parts, and return the answers of those that have one."""
        letters = {
            client: Letter({**self._letters[client].facts, **more, "secure": what})
            for client in clients
        }
        found = {}
        for client, answer in self._office.exchange(letters, self._check):
            if isinstance(answer, str):
                self.failures[client] = answer
            elif not isinstance(answer.facts.get(what), list):
                self.failures[client] = _why(answer)
            else:
                found[client] = answer
        return found

    def _need(self, found: "Mapping[int, Any] | list[int]", of: int) -> None:
        if of < 2:
            raise Refused("the sum of a single client is its update")
        if len(found) < max(2, threshold(of)):
            reasons = "; ".join(f"client {c}: {why}" for c, why in sorted(self.failures.items()))
            raise Refused(f"{max(2, threshold(of))} of {of} clients must go on ({reasons})")


def context_of(facts: Mapping[str, Any]) -> str:
    """Name the round of a job, which masks depend on."""
    return f"{facts['job']} {facts['round']}"


def _why(answer: Letter) -> str:
    if answer.facts.get("diverged"):
        return "its loss or update is not finite"
    return "its node failed; the log of the node says why"
