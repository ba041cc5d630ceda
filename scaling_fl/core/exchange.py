"""What a worker may ask of the others, and the case where there are none."""

from typing import Any, Protocol

import torch
from torch import Tensor


class Exchange(Protocol):
    """Sums and small records across workers; every worker makes the same calls in one order."""

    rank: int
    size: int
    sites: list[int]
    """For every site of the federation, in node order, the rank of the worker that runs it."""

    def zeros(self, size: int, device: torch.device) -> Tensor:
        """Make an int64 vector of zeros on the device for which ``total`` is fast."""

    def total(self, tensor: Tensor) -> Tensor:
        """Add an int64 tensor across workers, in place; integers make the order irrelevant."""

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Give every worker what worker 0 holds, in place."""

    def gather(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Give every worker the JSON records of all, in worker order."""

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
