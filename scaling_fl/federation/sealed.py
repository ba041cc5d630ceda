"""The sum of a round's updates, where the server learns nothing of each."""

import numpy as np
import torch
from torch import Tensor


class SealedSum:
    """Holds the sum of one round until the merge takes it: int64, as ``ExactSum`` holds sums."""

    def __init__(self) -> None:
        self._integers: Tensor | None = None

    def put(self, data: bytes) -> None:
        """Keep the sum: little-endian int64."""
        self._integers = torch.from_numpy(np.frombuffer(data, dtype="<i8").copy())

    def add_to(self, total: Tensor) -> None:
        """Add the sum to ``total``, and forget it."""
        if self._integers is not None:
            total.add_(self._integers.to(total.device))
        self._integers = None
