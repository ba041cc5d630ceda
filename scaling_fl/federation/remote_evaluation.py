"""Evaluation on other machines: a global vector leaves as a letter, and counts come back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scaling_fl.core.letters import Letter
from scaling_fl.core.state import Tensors
from scaling_fl.federation.evaluator import Elsewhere, Evaluator
from scaling_fl.federation.node_end import Forgotten, Remembering
from scaling_fl.federation.remote import PAYLOAD, Post, turn_of
from scaling_fl.methods.wire.direction import PLAIN, Payload

EVALUATE, COUNTS = "evaluate", "counts"
_ENTRY = 8
"""Bytes of a count."""


@dataclass(frozen=True, kw_only=True)
class NodesEvaluation:
    """Asks clients on other machines how many of their test examples a vector answers rightly."""

    post: Post
    of_job: Mapping[str, Any]
    """Facts that every letter carries."""
    num_counts: int
    """The size of a client's counts."""
    personal: Tensor | None
    """bool of the vector's size: the coordinates that clients keep."""

    def __call__(
        self,
        clients: Sequence[int],
        vector: Tensor,
        memories: Mapping[int, Tensors],
        check: Callable[[], None],
    ) -> Elsewhere:
        letters = {
            client: self._letter(client, vector, turn_of(memories.get(client, {})))
            for client in clients
        }
        counts, num_missing = torch.zeros(self.num_counts, dtype=torch.int64), 0
        num_bytes = sum(len(letter.parts[PAYLOAD]) for letter in letters.values())
        for client, answer in self.post.exchange(letters, check):
            found = self._counts(client, answer)
            if found is None:
                num_missing += 1
            else:
                counts += found
                num_bytes += self.num_counts * _ENTRY
        return Elsewhere(counts, num_missing, num_bytes)

    def _letter(self, client: int, vector: Tensor, turn: int) -> Letter:
        """Send what the client does not keep itself."""
        needed = vector if self.personal is None else vector[~self.personal.to(vector.device)]
        payload = PLAIN.send(needed, needed.numel())
        facts = {"what": EVALUATE, "client": client, "turn": turn}
        return Letter({**self.of_job, **facts}, {PAYLOAD: bytes(payload)})

    def _counts(self, client: int, answer: Letter | str) -> Tensor | None:
        """Read an answer, of which nothing is believed but the counts; None: there are none."""
        if isinstance(answer, str) or answer.facts.get("client") != client:
            return None
        part = answer.parts.get(COUNTS, b"")
        if len(part) != self.num_counts * _ENTRY:
            return None
        found = torch.from_numpy(np.frombuffer(part, dtype="<i8").astype(np.int64))
        return found if bool((found >= 0).all()) else None


class NodeEvaluation:
    """Evaluates the clients of a node as the server's letters say."""

    def __init__(self, evaluator: Evaluator, first: Tensor, personal: Tensor | None) -> None:
        """``first`` (fp32) has what clients keep before a first turn, where ``personal`` is set."""
        self._evaluator, self._first, self._personal = evaluator, first, personal

    def answer(self, letter: Letter, memories: Remembering) -> Letter:
        """Count on a client's test examples, with what it remembers.

        Raises:
            Forgotten: the client remembers no turn of that round.
            PayloadError: the vector is none of this federation.
        """
        client, turn = int(letter.facts["client"]), int(letter.facts["turn"])
        memory = memories.load(client, turn) if turn else {}
        if memory is None:
            raise Forgotten
        memory = {name: tensor.to(self._first.device) for name, tensor in memory.items()}
        vector = self._received(letter.parts[PAYLOAD])
        counts = self._evaluator.counts_of(client, vector, memory).cpu().numpy()
        return Letter({"client": client}, {COUNTS: counts.astype("<i8").tobytes()})

    def _received(self, part: bytes) -> Tensor:
        """Return the vector as all clients have it before their first turns."""
        vector = self._first.clone()
        common = (
            torch.ones(len(vector), dtype=torch.bool) if self._personal is None else ~self._personal
        )
        common = common.to(vector.device)
        vector[common] = Payload.from_bytes(part, int(common.sum())).decode().to(vector.device)
        return vector
