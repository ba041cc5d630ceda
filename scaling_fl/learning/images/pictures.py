"""Images that are not decoded yet, with their labels: what a reader of a data set returns."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from scaling_fl.learning.images.decoding import Pixels

if TYPE_CHECKING:
    from pathlib import Path

    from scaling_fl.learning.task import Split


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Images and their labels: ``read(numbers[i])`` decodes image i, on any thread.

    ``labels`` is int64 of n. Where an image may have several labels, ``marks`` (bool, n x labels)
    has them all, and ``labels`` the first of each, or 0.
    """

    read: Callable[[int], Pixels]
    numbers: NDArray[np.int64]
    labels: NDArray[np.int64]
    marks: NDArray[np.bool_] | None = None
    owners: NDArray[np.int64] | None = None
    """The client that each image belongs to, where the data says so; -1: none of those."""
    groups: NDArray[np.int64] | None = None
    """The group that each image belongs to, where a column of groups is named."""

    @classmethod
    def of(
        cls,
        read: Callable[[int], Pixels],
        labels: NDArray[np.int64],
        owners: NDArray[np.int64] | None = None,
    ) -> "Pictures":
        """Number images of one label each from 0."""
        return cls(read=read, numbers=np.arange(len(labels)), labels=labels, owners=owners)

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, indices: NDArray[np.int64]) -> "Pictures":
        return Pictures(
            read=self.read,
            numbers=self.numbers[indices],
            labels=self.labels[indices],
            marks=None if self.marks is None else self.marks[indices],
            owners=None if self.owners is None else self.owners[indices],
            groups=None if self.groups is None else self.groups[indices],
        )


class Gallery(Protocol):
    """A gallery is a module or a value with these three names."""

    @property
    def LABELS(self) -> tuple[str, ...]:
        """The labels' names; label i is named ``LABELS[i]``."""

    def load(
        self, split: "Split", path: str | None, *, cache_dir: "Path | None" = None
    ) -> Pictures:
        """Find the images of one split, raising DataError for what is wrong."""

    def source_digest(
        self, split: "Split", path: str | None, *, cache_dir: "Path | None" = None
    ) -> str:
        """Identify the content that ``load`` would read, without decoding it."""
