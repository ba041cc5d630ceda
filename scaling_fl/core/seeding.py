"""Randomness is derived, never carried: every stream is a function of (seed, purpose, indices).

Resuming therefore needs no random state, and no stream depends on how many workers there are.
"""

import hashlib

import numpy as np


def derive(seed: int, purpose: str, *indices: int) -> int:
    """Derive a 63-bit seed for one purpose, such as ``derive(seed, "order", round, client)``."""
    text = "/".join([str(int(seed)), purpose, *(str(int(index)) for index in indices)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """Make the numpy generator of one purpose."""
    return np.random.Generator(np.random.PCG64(derive(seed, purpose, *indices)))
