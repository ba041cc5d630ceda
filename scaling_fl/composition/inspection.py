"""What a run would understand of its data, before anything is trained."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from scaling_fl.composition.data import Data, count_clients, load_data
from scaling_fl.config import Config
from scaling_fl.core.errors import UserError
from scaling_fl.learning.tables.records import columns_of
from scaling_fl.learning.task import Indices, Split
from scaling_fl.learning.tasks.classification.family import Classification
from scaling_fl.learning.tasks.classification.histograms import entropy_bits, label_histograms
from scaling_fl.learning.tasks.classification.own_table import TableClassification
from scaling_fl.learning.text.tokenised import TokenisedExamples, whole_lengths

QUANTILES = {"min": 0.0, "25%": 0.25, "median": 0.5, "75%": 0.75, "95%": 0.95, "max": 1.0}
NUM_EXAMPLES = 3


def quantiles_of(lengths: Sequence[int]) -> dict[str, int]:
    """Return lengths that occur, by the share of the texts that are at most so long."""
    found = np.quantile(lengths, list(QUANTILES.values()), method="inverted_cdf")
    return dict(zip(QUANTILES, found.tolist(), strict=True))


@dataclass(frozen=True, kw_only=True)
class SplitInspection:
    """One split; its lengths are of whole texts, in tokens, special tokens included."""

    path: str | None
    columns: list[str] | None
    """All columns, of a table of one's own."""
    num_examples: int
    label_counts: list[int]
    lengths: list[int]
    num_cut: int
    """Texts that are longer than max_seq_len."""
    num_tokens: int
    num_cut_tokens: int

    @property
    def quantiles(self) -> dict[str, int]:
        return quantiles_of(self.lengths)


@dataclass(frozen=True, kw_only=True)
class Example:
    """An example of the training data as the model will see it, special tokens included."""

    label: str
    num_tokens: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The whole of it."""

    task_name: str
    model: str
    max_seq_len: int
    texts: list[str]
    """Columns that make the text, of a table of one's own; ``pairs`` those of the second text."""
    pairs: list[str]
    label: str | None
    label_names: list[str]
    train: SplitInspection
    test: SplitInspection
    test_share: float | None
    """The share of the training table that the test data is, if it is held out of that."""
    partition: str
    """How the clients come about: the kind of the partition, or the column."""
    client_names: list[str] | None
    histograms: list[list[int]]
    """Training examples of each client (rows) by label (columns)."""
    entropies: list[float]
    examples: list[Example]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data, the lengths by their quantiles."""
        found = asdict(self)
        for name, split in (("train", self.train), ("test", self.test)):
            found[name] |= {"lengths": split.quantiles}
        return found


def inspect(config: Config, stage: Callable[[str], None]) -> Inspection:
    """Read and tokenise the data as a run of the configuration would, and deal it to the clients.

    Raises:
        UserError: the run itself would refuse the data, or the task is not one of labelled texts.
    """
    num_clients = count_clients(config, len(config.site_ids))
    data = load_data(config, num_clients, stage)
    task = data.task
    if not isinstance(task, Classification):
        raise UserError(
            f"task_name must be a task of labelled texts to be looked at, got {config.task_name}; "
            "look at its data by means of its own."
        )
    stage("counting tokens")
    train, test = (_split(config, task, data, split) for split in ("train", "test"))
    histograms = label_histograms(data.train.strata, data.partitions, len(task.label_names))
    column = f"one for each {config.partition.column}"
    return Inspection(
        task_name=config.task_name,
        model=config.model,
        max_seq_len=config.max_seq_len,
        texts=list(task.options.columns.text),
        pairs=list(task.options.columns.text_pair),
        label=task.options.columns.label,
        label_names=task.label_names,
        train=train,
        test=test,
        test_share=config.data.test_share,
        partition=column if data.client_names else f"partition.kind={config.partition_kind}",
        client_names=data.client_names,
        histograms=histograms.tolist(),
        entropies=[entropy_bits(histogram) for histogram in histograms],
        examples=_examples(task, data.train),
        notes=[*data.notes, *_caveats(task, data, train)],
    )


def _split(config: Config, task: Classification, data: Data, split: Split) -> SplitInspection:
    examples = data.train if split == "train" else data.test
    source: Split = "train" if config.data.test_share is not None else split
    path = task.options.paths[source]
    is_table = isinstance(task, TableClassification) and path is not None
    lengths = whole_lengths(task.load_texts(split), task.tokenizer)
    over = np.maximum(lengths - config.max_seq_len, 0)
    return SplitInspection(
        path=path,
        columns=columns_of(str(path), source) if is_table else None,
        num_examples=len(examples),
        label_counts=np.bincount(examples.strata, minlength=len(task.label_names)).tolist(),
        lengths=lengths.tolist(),
        num_cut=int((over > 0).sum()),
        num_tokens=int(lengths.sum()),
        num_cut_tokens=int(over.sum()),
    )


def _examples(task: Classification, train: Any) -> list[Example]:
    """Show the first example of each of the first labels that there are."""
    assert isinstance(train, TokenisedExamples)
    _, firsts = np.unique(train.labels, return_index=True)
    rest = np.setdiff1d(np.arange(len(train)), firsts)
    chosen: Indices = np.concatenate([firsts, rest])[:NUM_EXAMPLES]
    found = []
    for index in chosen:
        tokens = train.token_ids[train.offsets[index] : train.offsets[index + 1]]
        found.append(
            Example(
                label=task.label_names[train.labels[index]],
                num_tokens=len(tokens),
                text=str(task.tokenizer.decode(tokens.tolist())),
            )
        )
    return found


def _caveats(task: Classification, data: Data, train: SplitInspection) -> list[str]:
    """Say what is odd about the labels of both splits."""
    names = zip(task.label_names, train.label_counts, strict=True)
    absent = [name for name, count in names if not count]
    found = [f"no training example is of {', '.join(absent)}"] if absent else []
    return [*found, *filter(None, [task.caveat(data.test)])]
