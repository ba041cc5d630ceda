"""Sums that hide their terms: masks that cancel, and shares that replace a client which drops out.

Every client adds to its int64 vector a mask of its own and one for each of its neighbours, all
modulo 2**64: of two neighbours, one adds their common mask and the other one subtracts it. So the
sum of all is that of the vectors and of the own masks. Clients that go on to the end reveal, by
shares of which a threshold is needed, the own mask of each neighbour that sent its vector, or the
key of each that did not; never both, since together they would show that neighbour's vector.

Source: Bell et al., CCS 2020 (Secure Single-Server Aggregation with (Poly)Logarithmic Overhead),
which is Bonawitz et al., CCS 2017 (Practical Secure Aggregation), figure 4, among neighbours.
"""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
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

from scaling_fl.federation.neighbours import SEED_SHARE, Refused, threshold

Integers = NDArray[np.int64]
_SEED = _HALF = 16  # bytes: of a seed, and of each part of a key, as Shamir's shares want them
_PUBLIC, _NONCE = 32, 12
_BYTES = ("mask_key", "share_key", "seed")
_TABLES = ("peers", "received")


@dataclass
class Masker:
    """One client's secrets of one round; plain data, which a node keeps between two messages."""

    client: int
    context: str
    """What the round is: masks of two contexts are not related."""
    told: str = ""
    """What the client has revealed in this round (see ``reveal``); it reveals nothing else."""
    mask_key: bytes = field(default_factory=lambda: os.urandom(2 * _HALF))
    share_key: bytes = field(default_factory=lambda: os.urandom(2 * _HALF))
    seed: bytes = field(default_factory=lambda: os.urandom(_SEED))
    neighbours: list[int] = field(default_factory=list)
    peers: dict[int, bytes] = field(default_factory=dict)
    """The public keys of the neighbours that have sent some."""
    received: dict[int, bytes] = field(default_factory=dict)
    """The encrypted shares of the neighbours, and the client's own, by client."""

    @property
    def threshold(self) -> int:
        return threshold(len(self.neighbours))

    def public_keys(self) -> bytes:
        """Return the keys that others need: for masks, and for shares."""
        return _public(self.mask_key) + _public(self.share_key)

    def shares(self, neighbours: Sequence[int], peers: Mapping[int, bytes]) -> dict[int, bytes]:
        """Return for each neighbour with keys a share of this client's secrets, for it alone.

        Raises:
            Refused: there were neighbours before, or too few have keys.
        """
        if self.neighbours or not peers.keys() <= set(neighbours) - {self.client}:
            raise Refused("a client has one set of neighbours in a round, which are others")
        self.neighbours, self.peers = sorted(neighbours), dict(peers)
        self._need(len(peers) + 1)
        holders = sorted([*neighbours, self.client])
        parts = (self.seed, self.mask_key[:_HALF], self.mask_key[_HALF:])
        split = [Shamir.split(self.threshold, len(holders), part, ssss=False) for part in parts]
        plain = {
            holder: b"".join(bytes([index]) + value for index, value in (s[place] for s in split))
            for place, holder in enumerate(holders)
        }
        self.received[self.client] = plain[self.client]
        return {peer: self._sealed(peer, plain[peer]) for peer in peers}

    def mask(self, integers: Integers, received: Mapping[int, bytes]) -> None:
        """Add the masks, in place; ``received`` are the shares of the neighbours still there.

        Raises:
            Refused: they are too few, or another vector was masked before.
        """
        if len(self.received) != 1 or not received.keys() <= self.peers.keys():
            raise Refused("a client masks one vector in a round, with its neighbours")
        self._need(len(received) + 1)
        self.received |= received
        integers += stream(self.seed, self.context, len(integers))
        for other in received:
            common = stream(self._common(other), self.context, len(integers))
            if self.client < other:
                integers += common
            else:
                integers -= common

    def reveal(self, survivors: Collection[int]) -> dict[int, bytes]:
        """Return shares: of the seeds of those whose vectors are in the sum, else of their keys.

        ``survivors`` are this client and neighbours. Whoever repeats the round later, with other
        secrets, is refused unless it names the same: the difference of two sums of one round would
        be the vectors of those that are in one of them alone.

        Raises:
            Refused: they are too few, this client is not among them, or others were named before.
        """
        named = sorted(survivors)
        told = sha256(repr((self.neighbours, named)).encode()).hexdigest()
        if self.client not in named or not set(named) <= self.received.keys():
            raise Refused("a client reveals what belongs to its own sum")
        if self.told not in ("", told):
            raise Refused("a client reveals once in a round, or again of the same sum")
        self._need(len(named))
        self.told = told
        return {
            client: shares[:SEED_SHARE] if client in named else shares[SEED_SHARE:]
            for client in self.received
            for shares in [self._opened(client)]
        }

    def to_json(self) -> dict[str, Any]:
        """Return plain data, which holds the secrets."""
        secret = {name: getattr(self, name).hex() for name in _BYTES}
        rest = {name: getattr(self, name) for name in ("client", "context", "told", "neighbours")}
        tables = {
            name: [[client, data.hex()] for client, data in getattr(self, name).items()]
            for name in _TABLES
        }
        return secret | rest | tables

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Masker":
        secret = {name: bytes.fromhex(found[name]) for name in _BYTES}
        tables = {
            name: {client: bytes.fromhex(data) for client, data in found[name]} for name in _TABLES
        }
        return cls(**{**found, **secret, **tables})

    def _need(self, number: int) -> None:
        if number < self.threshold:
            raise Refused(f"{self.threshold} of a client and its neighbours must be left")

    def _common(self, other: int) -> bytes:
        return _agreed(self.mask_key, self.peers[other][:_PUBLIC])

    def _sealed(self, other: int, plain: bytes) -> bytes:
        nonce = os.urandom(_NONCE)
        about = self._about(self.client, other)
        return nonce + self._cipher(other).encrypt(nonce, plain, about)

    def _opened(self, other: int) -> bytes:
        sealed = self.received[other]
        if other == self.client:
            return sealed
        try:
            about = self._about(other, self.client)
            return self._cipher(other).decrypt(sealed[:_NONCE], sealed[_NONCE:], about)
        except InvalidTag as error:
            raise Refused("a share was damaged on its way") from error

    def _cipher(self, other: int) -> AESGCM:
        return AESGCM(_agreed(self.share_key, self.peers[other][_PUBLIC:]))

    def _about(self, sender: int, receiver: int) -> bytes:
        return f"{self.context} {sender} {receiver}".encode()


def unmask(
    total: Integers,
    context: str,
    keys: Mapping[int, bytes],
    neighbours: Mapping[int, Collection[int]],
    survivors: Collection[int],
    sharing: Collection[int],
    revealed: Mapping[int, Mapping[int, bytes]],
) -> None:
    """Subtract from the sum of the survivors' vectors what their masks add up to, in place.

    ``keys`` and ``neighbours`` are those of all clients, ``sharing`` those whose masks are in the
    vectors, and ``revealed[client][of]`` the shares that clients have revealed.

    Raises:
        Refused: too few neighbours revealed shares of a client, or what they revealed is wrong.
    """
    for client in sharing:
        holders = [holder for holder in (client, *neighbours[client]) if holder in revealed]
        needed = threshold(len(neighbours[client]))
        if len(holders) < needed:
            raise Refused(
                f"{needed} of client {client} and its neighbours must reveal shares, and "
                f"{len(holders)} did"
            )
        shares = [revealed[holder][client] for holder in holders[:needed]]
        if client in survivors:
            total -= stream(_joined(shares, 0), context, len(total))
            continue
        key = _joined(shares, 0) + _joined(shares, 1)
        if _public(key) != keys[client][:_PUBLIC]:
            raise Refused("the shares of a client's key do not fit together")
        for other in set(neighbours[client]) & set(survivors):
            common = stream(_agreed(key, keys[other][:_PUBLIC]), context, len(total))
            if other < client:
                total -= common
            else:
                total += common


def stream(key: bytes, context: str, size: int) -> Integers:
    """Return ``size`` integers that nobody can tell from random ones without the key."""
    expanded = HKDF(SHA256(), 32, None, b"mask " + context.encode()).derive(key)
    cipher = Cipher(algorithms.ChaCha20(expanded, bytes(16)), mode=None).encryptor()
    return np.frombuffer(cipher.update(bytes(8 * size)), dtype="<i8").astype(np.int64, copy=False)


def _joined(shares: Iterable[bytes], part: int) -> bytes:
    cut = [share[part * SEED_SHARE : (part + 1) * SEED_SHARE] for share in shares]
    try:
        return bytes(Shamir.combine([(each[0], each[1:]) for each in cut], ssss=False))
    except (ValueError, IndexError) as error:
        raise Refused("a client revealed what is no share") from error


def _public(key: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()


def _agreed(key: bytes, public: bytes) -> bytes:
    other = X25519PublicKey.from_public_bytes(public)
    shared = X25519PrivateKey.from_private_bytes(key).exchange(other)
    return HKDF(SHA256(), 32, None, b"scaling_fl").derive(shared)
