"""Keys that another node than a client's has signed are refused."""

from pathlib import Path

import pytest

from scaling_fl.flower.secure_sum import Refused
from scaling_fl.flower.signing import (
    KEY,
    PUBLIC_KEY,
    check_signature,
    introduce,
    public_key,
    read_signers,
    sign,
)

KEYS = bytes(range(64))


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    found = [tmp_path / f"node{number}" for number in range(3)]
    introduce(found)
    return found


def test_what_the_clients_node_has_signed_is_believed(folders: list[Path]) -> None:
    signed = sign(folders[1], "job 3", 4, KEYS)
    assert len(signed) == 64
    check_signature(read_signers(folders[2]), "job 3", 4, KEYS, signed)


def test_nothing_else_is_believed(folders: list[Path]) -> None:
    signers = read_signers(folders[2])
    own = sign(folders[1], "job 3", 4, KEYS)
    forged = [
        ("job 3", 4, KEYS, sign(folders[0], "job 3", 4, KEYS)),
        ("job 3", 1, KEYS, own),
        ("job 4", 4, KEYS, own),
        ("job 3", 4, bytes(64), own),
        ("job 3", 4, KEYS, bytes(64)),
    ]
    for context, client, keys, signature in forged:
        with pytest.raises(Refused, match=f"keys of client {client} are not signed by its node"):
            check_signature(signers, context, client, keys, signature)


def test_a_node_keeps_its_key_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    assert read_signers(tmp_path) == []
    assert public_key(tmp_path) == public_key(tmp_path)
    assert (tmp_path / PUBLIC_KEY).read_text().split() == [public_key(tmp_path)]
    assert {path.name for path in tmp_path.iterdir()} == {KEY, PUBLIC_KEY}
    assert (tmp_path / KEY).stat().st_mode & 0o077 == 0
