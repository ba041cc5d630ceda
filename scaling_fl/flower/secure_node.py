"""A node's side of secure sums: its clients' secrets, in files of the node, and its refusals."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from scaling_fl.core.letters import INTEGERS, Letter
from scaling_fl.flower.secure_office import KEYS, MASKED, REVEAL, SHARES, context_of
from scaling_fl.flower.secure_sum import Integers, Masker

Turn = Callable[[Letter], tuple[Letter, Integers | None]]
"""letter -> the answer without its update, and the update as a sum holds it; None: it has none."""


def answer_secure(letter: Letter, folder: Path, turn: Turn) -> Letter:
    """Answer one of the four letters of a secure sum.

    Raises:
        Refused: the answer would show more than the sum.
    """
    facts = letter.facts
    file = folder / f"client-{int(facts['client']):06d}" / f"round-{int(facts['round']):06d}.json"
    if facts["secure"] == KEYS:
        masker = Masker(int(facts["client"]), context_of(facts))
        _forget(file.parent)
        answer = Letter({KEYS: masker.public_keys()})
    else:
        masker = Masker.from_json(json.loads(file.read_text()))
        answer = _answer(letter, masker, turn)
    _keep(file, json.dumps(masker.to_json()))
    return answer


def _answer(letter: Letter, masker: Masker, turn: Turn) -> Letter:
    facts = letter.facts
    if facts["secure"] == SHARES:
        peers = {int(client): list(keys) for client, *keys in facts["peers"]}
        return Letter({SHARES: list(map(list, masker.shares(peers).items()))})
    if facts["secure"] == REVEAL:
        return Letter({REVEAL: list(map(list, masker.reveal(facts["survivors"]).items()))})
    assert facts["secure"] == MASKED
    answer, integers = turn(letter)
    if integers is None:
        return answer
    masker.mask(integers, {int(client): sealed for client, sealed in facts["received"]})
    return Letter(answer.facts, {INTEGERS: integers.astype(np.int64, copy=False).tobytes()})


def _forget(folder: Path) -> None:
    """Drop the secrets of the client's former sums."""
    for path in folder.glob("round-*.json"):
        path.unlink()


def _keep(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = file.with_suffix(".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text)
    part.replace(file)
