"""Several workers as threads of one process, which meet the way processes do."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from scaling_fl.core.exchange import Exchange

T = TypeVar("T")


class EndAll(BaseException):
    """A worker's wish to end all workers in the middle of what they do; no error."""


class MeetingPlace:
    """Where the threads meet. One of them computes at a time, because torch's dice are common."""

    def __init__(self, size: int) -> None:
        self.slots: list[Any] = [None] * size
        self.turn = threading.Lock()
        self._barrier = threading.Barrier(size, timeout=60)
        self._is_left = False

    def wait(self) -> None:
        if self._is_left:
            raise threading.BrokenBarrierError
        self.turn.release()
        try:
            self._barrier.wait()
        finally:
            self.turn.acquire()

    def leave(self, *, at_once: bool) -> None:
        """Meet no more. Those who wait wait in vain; those who are about to go on may do so."""
        self._is_left = True
        if at_once or self._barrier.n_waiting:
            self._barrier.abort()


class ThreadExchange:
    """The exchange of one of several threads, which share a meeting place."""

    def __init__(self, rank: int, place: MeetingPlace) -> None:
        self.rank, self.size = rank, len(place.slots)
        self.sites = list(range(self.size))
        self._place = place

    def _swap(self, value: T) -> list[T]:
        self._place.slots[self.rank] = value
        self._place.wait()
        values = list(self._place.slots)
        self._place.wait()
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
    """Run ``work`` on so many workers and return what each came to, or None if interrupted.

    Raises:
        BrokenBarrierError: a worker waits for one that makes no more calls.
    """
    place = MeetingPlace(size)
    results: list[Any] = [None] * size
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        with place.turn:
            try:
                results[rank] = work(ThreadExchange(rank, place))
            except BaseException as error:
                errors.append(error)
                place.leave(at_once=True)
            else:
                place.leave(at_once=False)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors and not isinstance(errors[0], EndAll):  # the others only follow from the first
        raise errors[0]
    return results
