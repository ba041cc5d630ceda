"""Sums in memory that all workers of one machine map, so that no worker has to send its vector.

The memory has no file name: the kernel frees it when the last process that maps it has ended in any
way, and the size of /dev/shm does not limit it.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_CHUNK = 1 << 15  # int64 values of some workers that stay in a core's cache between the passes

Gather = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
"""Gives every worker the records of all workers, in the order of the workers."""


class SharedIntegers:
    """One int64 vector for each worker; every worker maps the vectors of all workers."""

    def __init__(self, rank: int, vectors: list[Tensor]) -> None:
        self.mine = vectors[rank]
        size, num_workers = self.mine.numel(), len(vectors)
        self._bounds = size * rank // num_workers, size * (rank + 1) // num_workers
        self._arrays: list[NDArray[np.int64]] = [vector.numpy() for vector in vectors]

    def add_up(self) -> None:
        """Write the sum of all vectors into each of them, for this worker's coordinates.

        No other worker reads or writes these coordinates. Call it after all workers have written
        their vectors; the sum is complete when the calls of all workers have returned.
        """
        low, high = self._bounds
        for offset in range(low, high, _CHUNK):
            chunk = slice(offset, min(offset + _CHUNK, high))
            first, *others = (array[chunk] for array in self._arrays)
            for other in others:
                first += other
            for other in others:
                other[:] = first


def map_shared_integers(size: int, rank: int, gather: Gather) -> SharedIntegers | None:
    """Make a vector of ``size`` zeros for each worker, and map the vectors of all workers.

    All workers call it together. Returns None to all workers if one of them cannot map a vector: on
    another operating system than Linux, or if it may not open the descriptors of another process.
    """
    descriptor = _make(8 * size)
    path = None if descriptor is None else f"/proc/{os.getpid()}/fd/{descriptor}"
    vectors = _map([record["path"] for record in gather([{"path": path}])], size)
    have_all = [record["mapped"] for record in gather([{"mapped": vectors is not None}])]
    if descriptor is not None:
        os.close(descriptor)
    return SharedIntegers(rank, vectors) if vectors is not None and all(have_all) else None


def _make(num_bytes: int) -> int | None:
    try:
        descriptor = os.memfd_create("scaling_fl sums")
    except (AttributeError, OSError):
        return None
    os.ftruncate(descriptor, num_bytes)
    return descriptor


def _map(paths: list[str | None], size: int) -> list[Tensor] | None:
    vectors = []
    for path in paths:
        if path is None:
            return None
        try:
            vectors.append(torch.from_file(path, shared=True, size=size, dtype=torch.int64))
        except RuntimeError:
            return None
    return vectors
