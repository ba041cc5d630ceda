"""Texts with labels, and what a module has to offer to be a corpus of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from scaling_fl.core.errors import InputError
from scaling_fl.core.seeding import numpy_generator

if TYPE_CHECKING:
    from scaling_fl.learning.task import Split


class DataError(InputError):
    """The data given is not what the task needs; the text names file, row and column."""


@dataclass(frozen=True)
class Labelled:
    """Texts and their labels: ``labels[i]`` belongs to ``texts[i]``."""

    texts: list[str]
    labels: NDArray[np.int64]
    pairs: list[str] | None = None
    """A second text beside each text."""
    owners: NDArray[np.int64] | None = None
    """The client that each text belongs to, where the data says so; -1: none of those."""
    groups: NDArray[np.int64] | None = None
    """The group that each text belongs to, where a column of groups is named."""

    def __post_init__(self) -> None:
        assert self.labels.dtype == np.int64
        assert len(self.texts) == len(self.labels)
        assert self.pairs is None or len(self.pairs) == len(self.texts)
        assert self.owners is None or len(self.owners) == len(self.texts)

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: NDArray[np.int64]) -> "Labelled":
        return Labelled(
            [self.texts[index] for index in indices],
            self.labels[indices],
            self.pairs and [self.pairs[index] for index in indices],
            None if self.owners is None else self.owners[indices],
            None if self.groups is None else self.groups[indices],
        )


class Rows(Protocol):
    """What random subsets are taken of."""

    @property
    def labels(self) -> NDArray[np.int64]: ...

    @property
    def owners(self) -> NDArray[np.int64] | None: ...

    def __len__(self) -> int: ...

    def take(self, indices: NDArray[np.int64]) -> Self: ...


AnyRows = TypeVar("AnyRows", bound=Rows)


class Corpus(Protocol):
    """A corpus is a module with these three names."""

    @property
    def LABELS(self) -> tuple[str, ...]:
        """The labels' names; label i is named ``LABELS[i]``."""

    def load(
        self,
        split: "Split",
        path: str | None,
        *,
        text: str | None = None,
        cache_dir: Path | None = None,
    ) -> Labelled:
        """Read one split, raising DataError for what is wrong in it."""

    def source_digest(
        self, split: "Split", path: str | None, *, cache_dir: Path | None = None
    ) -> str:
        """Identify the content that ``load`` would read, without parsing it."""


def subset(
    labelled: AnyRows, max_examples: int | None, seed: int, *, of_each_client: bool = False
) -> AnyRows:
    """Keep at most ``max_examples`` random examples, in their order.

    Each label keeps its share of the examples, up to rounding; ``of_each_client`` also keeps an
    example of each client, if there is room for so many.

    Raises:
        ValueError: when ``max_examples`` is not at least 1.
    """
    if max_examples is None or max_examples >= len(labelled):
        return labelled
    if max_examples < 1:
        raise ValueError(f"max_examples must be at least 1, got {max_examples}; use 1 or more.")
    shuffled = numpy_generator(seed, "subset").permutation(len(labelled))
    late = ~_one_of_each_client(shuffled, labelled.owners if of_each_client else None)
    first = _spread(shuffled, labelled.labels, late)[:max_examples]
    return labelled.take(np.sort(first))


def training_clients(names: Sequence[str], share: float, seed: int) -> list[str]:
    """Leave a random share of the clients out, at least one, who are held out as the test data.

    Raises:
        DataError: no client would be left.
    """
    number = max(1, round(share * len(names)))
    if number >= len(names):
        raise DataError(
            f"data.test_share must leave a client to train, got {share:g} of {len(names)} clients; "
            "lower it, or set data.test_of=rows."
        )
    left_out = set(numpy_generator(seed, "held-out clients").permutation(len(names))[:number])
    return [name for place, name in enumerate(names) if place not in left_out]


def held_out(
    labelled: Rows, share: float, seed: int, *, of_clients: bool = False
) -> NDArray[np.bool_]:
    """Choose a random share of the examples, at least one: their mask.

    Each label keeps its share of both parts, up to rounding. The last example of a client is
    chosen only when nothing else is left. With ``of_clients`` all examples are chosen that are of
    no client that trains (see ``training_clients``).
    """
    if of_clients:
        assert labelled.owners is not None
        return labelled.owners < 0
    number = min(max(1, round(share * len(labelled))), len(labelled) - 1)
    shuffled = numpy_generator(seed, "held out").permutation(len(labelled))
    late = _one_of_each_client(shuffled, labelled.owners)
    mask = np.zeros(len(labelled), dtype=np.bool_)
    mask[_spread(shuffled, labelled.labels, late)[:number]] = True
    return mask


def _one_of_each_client(
    shuffled: NDArray[np.int64], owners: NDArray[np.int64] | None
) -> NDArray[np.bool_]:
    """Mark the first example of each client; all of them when the data names no clients."""
    mask = np.full(len(shuffled), owners is None)
    if owners is not None:
        _, first = np.unique(owners[shuffled], return_index=True)
        mask[shuffled[first]] = True
    return mask


def _spread(
    shuffled: NDArray[np.int64], labels: NDArray[np.int64], late: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Order examples so that each beginning has all labels by their shares; the late ones last."""
    shuffled = shuffled[np.argsort(late[shuffled], kind="stable")]
    quantile = np.empty(len(shuffled))  # the place of an example in the queue of its own label
    for label in np.unique(labels):
        queue = shuffled[labels[shuffled] == label]
        quantile[queue] = (np.arange(len(queue)) + 0.5) / len(queue)
    return shuffled[np.lexsort((quantile[shuffled], late[shuffled]))]


def refuse_text_option(task: str, text: str | None) -> None:
    """Refuse a choice of the text column for a task whose rows have one text."""
    if text is not None:
        raise DataError(f"data.text has no effect on {task}, got {text}; leave it out.")
