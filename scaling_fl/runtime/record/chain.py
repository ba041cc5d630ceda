"""The chain of digests: that of a round covers all rounds before it."""

import hashlib
import json

from torch import Tensor


def chain_digest(
    previous: str, *, round: int, cohort: list[int], computation_digest: str, vector: Tensor
) -> str:
    """Chain a round to all before it: SHA-256 of what went in and of the state that came out."""
    head = json.dumps([previous, round, sorted(cohort), computation_digest])
    digest = hashlib.sha256(head.encode())
    digest.update(vector.detach().contiguous().numpy().data)
    return digest.hexdigest()
