"""Randomness is derived, never carried: every stream is a function of (seed, purpose, indices).

Resuming therefore needs no random state, and no stream depends on how many workers there are.
"""

import hashlib
import hmac
import json
from typing import Protocol

import numpy as np

_POOL_WORDS = 8  # of 32 bits, so that all 256 bits of a digest reach the generator's state


def derive(seed: int, purpose: str, *indices: int) -> int:
    """Derive a 63-bit seed for one purpose, such as ``derive(seed, "order", round, client)``."""
    text = "/".join([str(int(seed)), purpose, *(str(int(index)) for index in indices)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """Make the numpy generator of one purpose."""
    return np.random.Generator(np.random.PCG64(derive(seed, purpose, *indices)))


class Randomness(Protocol):
    """Makes the generator of one purpose.

    ``history`` is the digest of all rounds before. A secret randomness depends on it, so two jobs
    that have come to different states draw nothing in common from then on.
    """

    def __call__(self, purpose: str, *indices: int, history: str = "") -> np.random.Generator: ...


def from_seed(seed: int) -> Randomness:
    """Make the randomness that whoever knows the seed can repeat; it ignores the history."""
    return lambda purpose, *indices, history="": numpy_generator(seed, purpose, *indices)


def from_key(key: bytes) -> Randomness:
    """Make the randomness that nobody can repeat without the key, by HMAC-SHA256."""

    def generator(purpose: str, *indices: int, history: str = "") -> np.random.Generator:
        text = json.dumps([purpose, *map(int, indices), history])
        entropy = int.from_bytes(hmac.digest(key, text.encode(), "sha256"), "big")
        sequence = np.random.SeedSequence(entropy, pool_size=_POOL_WORDS)
        return np.random.Generator(np.random.PCG64(sequence))

    return generator
