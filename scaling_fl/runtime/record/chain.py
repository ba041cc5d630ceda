"""The chain of digests: that of a round covers all rounds before it."""

import json
from hashlib import sha256

from torch import Tensor

from scaling_fl.core.state import Tensors


def chain_digest(
    previous: str,
    *,
    round: int,
    cohort: list[int],
    computation_digest: str,
    vector: Tensor,
    remembered: Tensors | None = None,
) -> str:
    """Chain a round to all before it: SHA-256 of what went in and of the state that came out.

    ``remembered`` is what of the memory counts as well, by name.
    """
    head: list[object] = [previous, round, sorted(cohort), computation_digest]
    if pairs := sorted((remembered or {}).items()):
        head.append([[name, sha256(_bytes(kept)).hexdigest()] for name, kept in pairs])
    digest = sha256(json.dumps(head).encode())
    digest.update(_bytes(vector))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().contiguous().numpy().data
