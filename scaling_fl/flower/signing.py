"""Signatures on the keys of a secure sum, by which a node knows that no other has made them.

A node has a signing key of its own. The owners of all nodes hand each other the public ones past
the server, and each keeps them in a file, in the order of the nodes' numbers. Flower's own key of a
node stays with the program that talks to the server, and no app gets it.
"""

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from scaling_fl.federation.neighbours import Refused

KEY, PUBLIC_KEY, SIGNERS = "signing.key", "signing.pub", "signers.txt"
"""In a node's folder: its private key, its public key, and those of all nodes, one a line."""


def public_key(folder: Path) -> str:
    """Return the public signing key of a node, as hex; make its key if it has none."""
    return _own(folder).public_key().public_bytes_raw().hex()


def introduce(folders: Sequence[Path]) -> None:
    """Let every node know the keys of all, past the server, as their owners would."""
    text = "".join(f"{public_key(folder)}\n" for folder in folders)
    for folder in folders:
        (folder / SIGNERS).write_text(text, encoding="ascii")


def sign(folder: Path, context: str, client: int, keys: bytes) -> bytes:
    """Sign a client's public keys of one round of one job with the key of its node: 64 bytes."""
    return _own(folder).sign(_statement(context, client, keys))


def read_signers(folder: Path) -> list[Ed25519PublicKey]:
    """Read the public keys of all nodes; none: the node believes the server.

    Raises:
        ValueError: the file holds something else.
    """
    path = folder / SIGNERS
    lines = path.read_text(encoding="ascii").split() if path.exists() else []
    return [Ed25519PublicKey.from_public_bytes(bytes.fromhex(line)) for line in lines]


def check_signature(
    signers: Sequence[Ed25519PublicKey], context: str, client: int, keys: bytes, signature: bytes
) -> None:
    """Check that the node which the client is on has signed its keys.

    Raises:
        Refused: it has not.
    """
    try:
        signer = signers[client % len(signers)]  # a node has every client of its number
        signer.verify(signature, _statement(context, client, keys))
    except InvalidSignature:
        raise Refused(f"the keys of client {client} are not signed by its node") from None


def _statement(context: str, client: int, keys: bytes) -> bytes:
    return f"scaling_fl secure sum, {context}, client {client}: ".encode() + keys


def _own(folder: Path) -> Ed25519PrivateKey:
    path = folder / KEY
    if path.exists():
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text()))
    _write(path, Ed25519PrivateKey.generate().private_bytes_raw().hex() + "\n")
    found = _own(folder)  # which another process may have written
    (folder / PUBLIC_KEY).write_text(found.public_key().public_bytes_raw().hex() + "\n")
    return found


def _write(path: Path, text: str) -> None:
    """Write a file whole, readable for its owner alone, unless another process was faster."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    number, part = tempfile.mkstemp(dir=path.parent)  # mode 0600
    with os.fdopen(number, "w") as file:
        file.write(text)
    with suppress(FileExistsError):
        os.link(part, path)
    os.unlink(part)
