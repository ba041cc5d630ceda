"""What a worker may ask of the other workers, and the exchange of a worker without others."""

from typing import Any, Protocol

import torch
from torch import Tensor


class Exchange(Protocol):
    """Sums and small records across workers; all workers make the same calls in the same order."""

    rank: int
    size: int
    sites: list[int]
    """For every site of the federation, in node order, the rank of the worker that runs it."""

    def zeros(self, size: int, device: torch.device) -> Tensor:
        """Make an int64 vector of zeros on a device; ``total`` is fastest for such a vector."""

    def total(self, tensor: Tensor) -> Tensor:
        """Add the int64 tensors of all workers, in place; a sum of integers has no order."""

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Overwrite every worker's tensor with the tensor of worker 0."""

    def gather(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Give every worker the JSON records of all workers, in the order of the workers."""

    def close(self) -> None:
        """Leave the group."""


class SingleExchange:
    """The exchange of one worker: every sum is already complete."""

    rank = 0
    size = 1

    def __init__(self, num_sites: int) -> None:
        self.sites = [0] * num_sites

    def zeros(self, size: int, device: torch.device) -> Tensor:
        return torch.zeros(size, dtype=torch.int64, device=device)

    def total(self, tensor: Tensor) -> Tensor:
        return tensor

    def broadcast(self, tensor: Tensor) -> Tensor:
        return tensor

    def gather(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return records

    def close(self) -> None:
        pass
