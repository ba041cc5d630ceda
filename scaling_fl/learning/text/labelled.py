"""Texts with labels, and what a module has to offer to be a corpus of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scaling_fl.core.errors import UserError
from scaling_fl.core.seeding import numpy_generator
from scaling_fl.learning.task import Split


class DataError(UserError):
    """The data given is not what the task needs; the text names file, row and column."""


@dataclass(frozen=True)
class Labelled:
    """Texts and their labels: ``labels[i]`` belongs to ``texts[i]``."""

    texts: list[str]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        assert self.labels.dtype == np.int64
        assert len(self.texts) == len(self.labels)

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: NDArray[np.int64]) -> "Labelled":
        return Labelled([self.texts[index] for index in indices], self.labels[indices])


class Corpus(Protocol):
    """A corpus is a module with these three names."""

    @property
    def LABELS(self) -> tuple[str, ...]:
        """The labels' names; label i is named ``LABELS[i]``."""

    def load(
        self,
        split: Split,
        path: str | None,
        *,
        text: str | None = None,
        cache_dir: Path | None = None,
    ) -> Labelled:
        """Read one split, raising DataError for what is wrong in it."""

    def source_digest(
        self, split: Split, path: str | None, *, cache_dir: Path | None = None
    ) -> str:
        """Identify the content that ``load`` would read, without parsing it."""


def subset(labelled: Labelled, max_examples: int | None, seed: int) -> Labelled:
    """Keep at most ``max_examples`` random examples, in their order.

    Each label keeps its share of the examples, up to rounding.

    Raises:
        ValueError: when ``max_examples`` is not at least 1.
    """
    if max_examples is None or max_examples >= len(labelled):
        return labelled
    if max_examples < 1:
        raise ValueError(f"max_examples must be at least 1, got {max_examples}; use 1 or more.")
    shuffled = numpy_generator(seed, "subset").permutation(len(labelled))
    quantile = np.empty(len(labelled))  # the place of an example in the queue of its own label
    for label in np.unique(labelled.labels):
        queue = shuffled[labelled.labels[shuffled] == label]
        quantile[queue] = (np.arange(len(queue)) + 0.5) / len(queue)
    first = shuffled[np.argsort(quantile[shuffled], kind="stable")[:max_examples]]
    return labelled.take(np.sort(first))


def refuse_text_option(task: str, text: str | None) -> None:
    """Refuse a choice of the text column for a task whose rows have one text."""
    if text is not None:
        raise DataError(f"data.text has no effect on {task}, got {text}; leave it out.")
