"""Several workers as threads of one process, which meet the way processes do."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from scaling_fl.core.exchange import Exchange

T = TypeVar("T")


class ThreadExchange:
    """The exchange of one of several threads; ``slots`` and ``barrier`` are common to all."""

    def __init__(self, rank: int, slots: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.size, self.sites = rank, len(slots), list(range(len(slots)))
        self._slots, self._barrier = slots, barrier

    def _swap(self, value: T) -> list[T]:
        self._slots[self.rank] = value
        self._barrier.wait()
        values = list(self._slots)
        self._barrier.wait()
        return values

    def zeros(self, size: int, device: torch.device) -> Tensor:
        return torch.zeros(size, dtype=torch.int64, device=device)

    def total(self, tensor: Tensor) -> Tensor:
        parts = self._swap(tensor.clone())
        tensor.zero_()
        for part in parts:
            tensor += part
        return tensor

    def broadcast(self, tensor: Tensor) -> Tensor:
        tensor.copy_(self._swap(tensor.clone())[0])
        return tensor

    def gather(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [record for part in self._swap(records) for record in part]

    def close(self) -> None:
        pass


def on_workers(size: int, work: Callable[[Exchange], T]) -> list[T]:
    """Run ``work`` on so many workers at once and return what each came to."""
    slots: list[Any] = [None] * size
    barrier = threading.Barrier(size, timeout=30)
    results: list[Any] = [None] * size

    def run(rank: int) -> None:
        try:
            results[rank] = work(ThreadExchange(rank, slots, barrier))
        except BaseException as error:
            results[rank] = error
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
