"""The server's side of secure sums: four messages to every client of a round, and one sum."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from scaling_fl.core.letters import INTEGERS, SUM, TRAFFIC, Letter
from scaling_fl.federation.neighbours import Refused, fewest_left, ring
from scaling_fl.federation.remote import failure_of
from scaling_fl.flower.secure_sum import Integers, unmask

if TYPE_CHECKING:
    from scaling_fl.composition.remote import Office

KEYS, SHARES, MASKED, REVEAL = "keys", "shares", "masked", "reveal"
Answers = Mapping[int, Mapping[int, bytes]]
"""What clients sent for, or revealed of, other clients: ``answers[client][other]``."""


class SecureOffice:
    """Carries letters as the office inside does, but learns the sum of the updates alone.

    Beside the answers of the clients, which have no update, ``exchange`` yields the sum as int64
    (modulo 2**64) with the bytes that each client received and sent, or why there is none.
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
        traffic = [[client, *both] for client, both in round.traffic.items()]
        yield SUM, Letter({TRAFFIC: traffic}, {INTEGERS: total.tobytes()})


class _SecureRound:
    def __init__(
        self, office: "Office", letters: Mapping[int, Letter], check: Callable[[], None]
    ) -> None:
        self._office, self._letters, self._check = office, letters, check
        first = next(iter(letters.values())).facts
        self._context = context_of(first)
        self._size = int(first["size"])
        # Drawn for all that are asked, so that a round that is repeated has the same neighbours.
        self._near = ring(letters, self._context)
        self.failures: dict[int, str] = {}
        self.answers: dict[int, Letter] = {}
        self.traffic = {client: [0, 0] for client in letters}
        """The bytes of the parts that each client received and sent."""

    def run(self) -> Integers:
        """Ask in four turns, and return the sum of those that answered the first three.

        Raises:
            Refused: too few clients are left.
        """
        if len(self._letters) < 2:
            raise Refused("the sum of a single client is its update")
        keys = self._public_keys()
        shares = self._shares(keys)
        total = self._masked_sum(shares)
        revealed = self._revealed(shares)
        try:
            unmask(total, self._context, keys, self._near, self.answers, shares, revealed)
        except ValueError as error:
            raise Refused("a client revealed what is no share") from error
        # Whoever sent its vector is in the sum, whether it went on or not.
        for client in self.answers:
            self.failures.pop(client, None)
        return total

    def _public_keys(self) -> dict[int, bytes]:
        everybody = {client: [client] for client in self._letters}
        found = self._ask(KEYS, dict.fromkeys(everybody, Letter({})), everybody)
        keys = {client: answer[client] for client, answer in found.items()}
        self._need(keys)
        return keys

    def _shares(self, keys: Mapping[int, bytes]) -> Answers:
        near = {client: self._near_of(client, keys) for client in keys}
        letters = {
            client: Letter(
                {"clients": len(self._letters), "neighbours": self._near[client]},
                {str(other): keys[other] for other in near[client]},
            )
            for client in keys
        }
        shares = self._ask(SHARES, letters, near)
        self._need(shares)
        return shares

    def _masked_sum(self, shares: Answers) -> Integers:
        total = np.zeros(self._size, np.int64)
        letters = {}
        for client in shares:
            received = {str(n): shares[n][client] for n in self._near_of(client, shares)}
            letters[client] = Letter({}, {**self._letters[client].parts, **received})
        for client, answer in self._exchange(MASKED, letters):
            vector = self._vector(client, answer)
            if vector is not None and isinstance(answer, Letter):
                total += vector
                self.answers[client] = Letter(answer.facts)
        self._need(self.answers)
        return total

    def _revealed(self, shares: Answers) -> Answers:
        letters = {
            client: Letter({"survivors": [client, *self._near_of(client, self.answers)]})
            for client in self.answers
        }
        held = {client: [client, *self._near_of(client, shares)] for client in self.answers}
        return self._ask(REVEAL, letters, held)

    def _near_of(self, client: int, there: Collection[int]) -> list[int]:
        return [other for other in self._near[client] if other in there]

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

    def _ask(
        self, what: str, letters: Mapping[int, Letter], wanted: Mapping[int, Collection[int]]
    ) -> Answers:
        """Return what clients answer, of those that have something for all in ``wanted``."""
        found = {}
        for client, answer in self._exchange(what, letters):
            if isinstance(answer, str):
                self.failures[client] = answer
            elif answer.parts.keys() != set(map(str, wanted[client])):
                self.failures[client] = _why(answer)
            else:
                found[client] = {int(other): data for other, data in answer.parts.items()}
        return found

    def _exchange(
        self, what: str, letters: Mapping[int, Letter]
    ) -> Iterator[tuple[int, Letter | str]]:
        """Send letters, with all facts of the first ones, and count the bytes both ways."""
        whole = {
            client: Letter(
                {**self._letters[client].facts, **more.facts, "secure": what}, more.parts
            )
            for client, more in letters.items()
        }
        for client, letter in whole.items():
            self.traffic[client][0] += letter.num_bytes
        for client, answer in self._office.exchange(whole, self._check):
            if isinstance(answer, Letter):
                self.traffic[client][1] += answer.num_bytes
            yield client, answer

    def _need(self, found: Collection[int]) -> None:
        of = len(self._letters)
        if len(found) < fewest_left(of):
            reasons = "; ".join(f"client {c}: {why}" for c, why in sorted(self.failures.items()))
            raise Refused(f"{fewest_left(of)} of {of} clients must go on ({reasons})")


def context_of(facts: Mapping[str, Any]) -> str:
    """Name the round of a job, which masks depend on."""
    return f"{facts['job']} {facts['round']}"


def _why(answer: Letter) -> str:
    if answer.facts.get("diverged"):
        return "its loss or update is not finite"
    return failure_of(answer) or "its node sent what it must not"
