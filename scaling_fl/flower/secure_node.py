"""A node's side of secure sums: its clients' secrets, in files of the node, and its refusals."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scaling_fl.core.letters import INTEGERS, Letter
from scaling_fl.core.places import Place
from scaling_fl.federation.neighbours import KEYS_BYTES, SIGNATURE, Refused, num_neighbours
from scaling_fl.flower.secure_office import KEYS, MASKED, REVEAL, SHARES, context_of
from scaling_fl.flower.secure_sum import Integers, Masker
from scaling_fl.flower.signing import check_signature, read_signers, sign

Turn = Callable[[Letter], tuple[Letter, Integers | None]]
"""letter -> the answer without its update, and the update as a sum holds it; None: it has none."""


def answer_secure(letter: Letter, folder: Path, turn: Turn) -> Letter:
    """Answer one of the four letters of a secure sum; ``folder`` is the node's.

    Raises:
        Refused: the answer would show more than the sum.
    """
    facts = letter.facts
    name = f"client-{int(facts['client']):06d}.json"
    file = _secrets(folder, facts) / name
    kept = _read(file)
    if facts["secure"] == KEYS:
        _begin(facts, kept)
    masker = Masker.from_json(kept["masker"])
    if masker.context != context_of(facts):
        raise Refused("the secrets are of another round")
    answer = _answer(letter, masker, folder, turn)
    if masker.told:
        kept["told"][str(facts["round"])] = masker.told
    _keep(file, json.dumps({**kept, "masker": masker.to_json()}))
    return answer


def check_open(letter: Letter, place: Place) -> None:
    """Refuse to send an update as it is, where the owner or an earlier sum of the job forbids it.

    Raises:
        Refused: it does.
    """
    is_forbidden = place.only_sums or _secrets(place.folder, letter.facts).exists()
    if is_forbidden and letter.facts["what"] == "train":
        raise Refused("an update is sent in a sum alone")


def _secrets(folder: Path, facts: Mapping[str, Any]) -> Path:
    return folder / "secrets" / str(facts["job"])


def _begin(facts: Mapping[str, Any], kept: dict[str, Any]) -> None:
    """Make new secrets, in place of those before; what was revealed is not forgotten.

    A job that goes back repeats rounds, but none up to ``oldest``.

    Raises:
        Refused: nobody knows any more what was revealed in the round.
    """
    number, oldest = int(facts["round"]), max(kept["oldest"], int(facts["oldest"]))
    if number <= oldest:
        raise Refused("the round is before those that the job can go back to")
    told = {n: what for n, what in kept["told"].items() if int(n) > oldest}
    masker = Masker(int(facts["client"]), context_of(facts), told.get(str(number), ""))
    kept.update(oldest=oldest, told=told, masker=masker.to_json())


def _answer(letter: Letter, masker: Masker, folder: Path, turn: Turn) -> Letter:
    facts, about = letter.facts, _about_others(letter)
    if facts["secure"] == KEYS:
        keys = masker.public_keys()
        signed = keys + sign(folder, masker.context, masker.client, keys)
        return _letter({masker.client: signed})
    if facts["secure"] == SHARES:
        neighbours = [int(other) for other in facts["neighbours"]]
        _check_neighbours(neighbours, int(facts["clients"]))
        _check_keys(about, masker.context, folder)
        peers = {other: signed[:-SIGNATURE] for other, signed in about.items()}
        return _letter(masker.shares(neighbours, peers))
    if facts["secure"] == REVEAL:
        return _letter(masker.reveal(facts["survivors"]))
    assert facts["secure"] == MASKED
    others = set(map(str, about))
    own = {name: part for name, part in letter.parts.items() if name not in others}
    answer, integers = turn(Letter(facts, own))
    if integers is None:
        return answer
    masker.mask(integers, about)
    return Letter(answer.facts, {INTEGERS: integers.astype(np.int64, copy=False).tobytes()})


def _about_others(letter: Letter) -> dict[int, bytes]:
    """Return the parts that are about other clients, which have their numbers as names."""
    return {int(name): part for name, part in letter.parts.items() if name.isdecimal()}


def _letter(about: Mapping[int, bytes]) -> Letter:
    return Letter({}, {str(client): part for client, part in about.items()})


def _check_neighbours(neighbours: Sequence[int], num_clients: int) -> None:
    """Refuse fewer neighbours than are safe among so many clients, and more than are needed."""
    wanted = num_neighbours(num_clients) if num_clients > 1 else 1
    if len(set(neighbours)) != wanted or len(neighbours) != wanted:
        raise Refused(
            f"each of {num_clients} clients must have {wanted} neighbours, got {neighbours}"
        )


def _check_keys(signed: Mapping[int, bytes], context: str, folder: Path) -> None:
    """Refuse keys that are none or, where the owner has listed all nodes, not signed by theirs."""
    if any(len(each) != KEYS_BYTES for each in signed.values()):
        raise Refused("a client must have two keys and a signature")
    if signers := read_signers(folder):
        for client, each in signed.items():
            keys, signature = each[:-SIGNATURE], each[-SIGNATURE:]
            check_signature(signers, context, client, keys, signature)


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"told": {}, "oldest": 0}
    if file.exists():
        found |= json.loads(file.read_text())
    return found


def _keep(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = file.with_suffix(".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text)
    part.replace(file)
