"""20 Newsgroups grouped into its four big topics; the groups outside them are left out."""

from pathlib import Path

import numpy as np

from scaling_fl.learning.task import Split
from scaling_fl.learning.tasks.classification import twenty_newsgroups
from scaling_fl.learning.text.labelled import DataError, Labelled

LABELS = ("comp", "rec", "sci", "talk")
_TOPIC_OF_GROUP = np.array(
    [
        LABELS.index(topic) if (topic := group.split(".")[0]) in LABELS else -1
        for group in twenty_newsgroups.LABELS
    ],
    dtype=np.int64,
)


def load(
    split: Split, path: str | None, *, text: str | None = None, cache_dir: Path | None = None
) -> Labelled:
    """Read one split, keeping the groups comp.*, rec.*, sci.* and talk.* only."""
    groups = twenty_newsgroups.load(split, path, text=text, cache_dir=cache_dir)
    topics = _TOPIC_OF_GROUP[groups.labels]
    kept = groups.take(np.flatnonzero(topics >= 0))
    if not len(kept):
        raise DataError(
            f"{path}: the messages of {', '.join(f'{topic}.*' for topic in LABELS)} are read, and "
            f"none of its {len(groups)} is one; use task_name=20newsgroups, or give other data."
        )
    return Labelled(kept.texts, _TOPIC_OF_GROUP[kept.labels])


def source_digest(split: Split, path: str | None, *, cache_dir: Path | None = None) -> str:
    return twenty_newsgroups.source_digest(split, path, cache_dir=cache_dir)
