"""Sums that hide their terms: masks that cancel, and shares that replace a client which drops out.

Every client adds to its int64 vector a mask of its own and one for each other client, all modulo
2**64: of two clients, one adds their common mask and the other one subtracts it. So the sum of all
is that of the vectors and of the own masks. Clients that go on to the end reveal, by shares of
which ``threshold`` are needed, the own mask of each that sent its vector, or the key of each that
did not; never both, since together they would show that client's vector.

Source: Bonawitz et al., CCS 2017 (Practical Secure Aggregation), figure 4, against a server that
keeps to the protocol: it hands public keys on, and nothing proves whose they are.
"""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from Crypto.Protocol.SecretSharing import Shamir
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

Integers = NDArray[np.int64]
_SEED, _HALF = 16, 16  # bytes: of a seed, and of each part of a key, as Shamir's shares want them
_SECRETS = ("mask_key", "share_key", "seed")
_SHARE = 17  # an index and the value at it


class Refused(Exception):
    """A request that would let the server see a single client's vector, or a damaged share."""


def threshold(num_clients: int) -> int:
    """Return how many clients must go on to the end: more than half of them."""
    return num_clients // 2 + 1


@dataclass
class Masker:
    """One client's secrets of one round; plain data, which a node keeps between two messages."""

    client: int
    context: str
    """What the round is: masks of two contexts are not related."""
    mask_key: bytes = field(default_factory=lambda: os.urandom(2 * _HALF))
    share_key: bytes = field(default_factory=lambda: os.urandom(2 * _HALF))
    seed: bytes = field(default_factory=lambda: os.urandom(_SEED))
    peers: dict[int, list[str]] = field(default_factory=dict)
    """The public keys of all clients of the round, by client."""
    received: dict[int, str] = field(default_factory=dict)
    """The encrypted shares of the others, by client."""
    revealed: list[list[int]] = field(default_factory=list)

    def public_keys(self) -> list[str]:
        """Return the keys that others need: for masks, and for shares."""
        return [_public(self.mask_key), _public(self.share_key)]

    def shares(self, peers: Mapping[int, list[str]]) -> dict[int, str]:
        """Return for each other client a share of this one's secrets, which it alone can read.

        Raises:
            Refused: there were other peers before, or this client is not among them.
        """
        if self.peers or len(peers) < 2 or peers.get(self.client) != self.public_keys():
            raise Refused("a client takes part in one sum of a round, with others")
        self.peers = dict(peers)
        others = sorted(peers)
        parts = (self.seed, self.mask_key[:_HALF], self.mask_key[_HALF:])
        split = [
            Shamir.split(threshold(len(others)), len(others), part, ssss=False) for part in parts
        ]
        found = {}
        for place, other in enumerate(others):
            plain = b"".join(bytes([index]) + value for index, value in (s[place] for s in split))
            if other == self.client:
                self.received[other] = plain.hex()
            else:
                found[other] = self._sealed(other, plain)
        return found

    def mask(self, integers: Integers, received: Mapping[int, str]) -> None:
        """Add the masks, in place; ``received`` are the shares of those that are still there.

        Raises:
            Refused: they are too few, or another vector was masked before.
        """
        if len(self.received) > 1 or len(received) + 1 < threshold(len(self.peers)):
            raise Refused("too few clients are left, or a vector was masked before")
        self.received |= {client: str(sealed) for client, sealed in received.items()}
        integers += stream(self.seed, self.context, len(integers))
        for other in received:
            common = stream(self._common(other), self.context, len(integers))
            if self.client < other:
                integers += common
            else:
                integers -= common

    def reveal(self, survivors: Collection[int]) -> dict[int, str]:
        """Return shares: of the seeds of those whose vectors are in the sum, else of their keys.

        Raises:
            Refused: they are too few, this client is not among them, or others were named before.
        """
        named = sorted(survivors)
        known = set(named) <= self.received.keys()
        if self.revealed not in ([], [named]) or self.client not in named or not known:
            raise Refused("a client reveals once, what belongs to its own sum")
        if len(named) < threshold(len(self.peers)):
            raise Refused("too few clients are left")
        self.revealed = [named]
        return {
            client: (shares[:_SHARE] if client in named else shares[_SHARE:]).hex()
            for client in self.received
            for shares in [self._opened(client)]
        }

    def to_json(self) -> dict[str, Any]:
        """Return plain data, which holds the secrets."""
        keys = {name: getattr(self, name).hex() for name in _SECRETS}
        rest = {name: getattr(self, name) for name in ("client", "context", "revealed")}
        tables = {name: list(getattr(self, name).items()) for name in ("peers", "received")}
        return keys | rest | tables

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Masker":
        mask_key, share_key, seed = (bytes.fromhex(found[name]) for name in _SECRETS)
        return cls(
            client=found["client"],
            context=found["context"],
            mask_key=mask_key,
            share_key=share_key,
            seed=seed,
            peers=dict(found["peers"]),
            received=dict(found["received"]),
            revealed=found["revealed"],
        )

    def _common(self, other: int) -> bytes:
        return _agreed(self.mask_key, self.peers[other][0])

    def _sealed(self, other: int, plain: bytes) -> str:
        nonce = os.urandom(12)
        return (
            nonce + self._cipher(other).encrypt(nonce, plain, self._about(self.client, other))
        ).hex()

    def _opened(self, other: int) -> bytes:
        sealed = bytes.fromhex(self.received[other])
        if other == self.client:
            return sealed
        try:
            about = self._about(other, self.client)
            return self._cipher(other).decrypt(sealed[:12], sealed[12:], about)
        except InvalidTag as error:
            raise Refused("a share was damaged on its way") from error

    def _cipher(self, other: int) -> AESGCM:
        return AESGCM(_agreed(self.share_key, self.peers[other][1]))

    def _about(self, sender: int, receiver: int) -> bytes:
        return f"{self.context} {sender} {receiver}".encode()


def unmask(
    total: Integers,
    context: str,
    keys: Mapping[int, list[str]],
    survivors: Collection[int],
    sharing: Collection[int],
    revealed: Mapping[int, Mapping[int, str]],
) -> None:
    """Subtract from the sum of the survivors' vectors what their masks add up to, in place.

    ``keys`` are the public keys of all clients, ``sharing`` those whose masks are in the vectors,
    and ``revealed[client][of]`` the shares that clients have revealed.

    Raises:
        Refused: fewer clients than the threshold revealed shares, or what they revealed is wrong.
    """
    needed = threshold(len(keys))
    if len(revealed) < needed:
        raise Refused(f"{needed} clients must reveal shares, and {len(revealed)} did")
    used = dict(list(revealed.items())[:needed])
    for client in survivors:
        seed = _joined([bytes.fromhex(shares[client]) for shares in used.values()], 0)
        total -= stream(seed, context, len(total))
    for gone in set(sharing) - set(survivors):
        shares = [bytes.fromhex(each[gone]) for each in used.values()]
        key = _joined(shares, 0) + _joined(shares, 1)
        if _public(key) != keys[gone][0]:
            raise Refused("the shares of a client's key do not fit together")
        for client in survivors:
            common = stream(_agreed(key, keys[client][0]), context, len(total))
            if client < gone:
                total -= common
            else:
                total += common


def stream(key: bytes, context: str, size: int) -> Integers:
    """Return ``size`` integers that nobody can tell from random ones without the key."""
    expanded = HKDF(SHA256(), 32, None, b"mask " + context.encode()).derive(key)
    cipher = Cipher(algorithms.ChaCha20(expanded, bytes(16)), mode=None).encryptor()
    return np.frombuffer(cipher.update(bytes(8 * size)), dtype="<i8").astype(np.int64, copy=False)


def _joined(shares: list[bytes], part: int) -> bytes:
    cut = [share[part * _SHARE : (part + 1) * _SHARE] for share in shares]
    try:
        return bytes(Shamir.combine([(each[0], each[1:]) for each in cut], ssss=False))
    except (ValueError, IndexError) as error:
        raise Refused("a client revealed what is no share") from error


def _public(key: bytes) -> str:
    return X25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw().hex()


def _agreed(key: bytes, public: str) -> bytes:
    other = X25519PublicKey.from_public_bytes(bytes.fromhex(public))
    shared = X25519PrivateKey.from_private_bytes(key).exchange(other)
    return HKDF(SHA256(), 32, None, b"scaling_fl").derive(shared)
