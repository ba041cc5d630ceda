"""A table of one's own: texts in columns, labels found in the training data, natural clients."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from scaling_fl.core.json_text import json_text
from scaling_fl.learning.cache import cache_folder, cached_folder
from scaling_fl.learning.options import TaskOptions
from scaling_fl.learning.tables.cells import cell_text, group_numbers, refuse_missing, sorted_names
from scaling_fl.learning.tables.records import (
    Records,
    columns_of,
    read_records,
    table_digest,
)
from scaling_fl.learning.tables.sources import require_path
from scaling_fl.learning.task import Examples, Indices, Split
from scaling_fl.learning.tasks.classification.family import Classification
from scaling_fl.learning.tasks.classification.own_labels import (
    check_labels,
    label_numbers,
    names_in,
    needed,
)
from scaling_fl.learning.tasks.held_out import mask_of_test, trained_by
from scaling_fl.learning.text.labelled import Labelled
from scaling_fl.learning.text.tokenised import TokenisedExamples

_FORMAT_VERSION = 1
_FACTS = "facts.json"


@dataclass(frozen=True)
class OwnTable:
    """The corpus of a table; what must be found in the training data is kept in the cache."""

    options: TaskOptions

    @cached_property
    def LABELS(self) -> tuple[str, ...]:
        return self.options.labels or tuple(self._facts["labels"])

    @cached_property
    def client_names(self) -> tuple[str, ...]:
        names = self._facts["clients"] if self.options.columns.client else []
        return tuple(trained_by(self.options, names))

    @cached_property
    def _facts(self) -> dict[str, list[str]]:
        """Find the labels and clients of the training table, whatever is held out of it."""
        path = require_path("table", "train", self.options.paths["train"])
        columns = self.options.columns
        key = _digest([table_digest(path, "train"), columns.label, columns.client])

        def build(staging: Path) -> None:
            wanted = [name for name in (columns.label, columns.client) if name]
            records = read_records(path, "train", wanted)
            found = sorted_names(names_in(records, columns.label, "label"))
            declared = records.classes.get(str(columns.label))
            facts = {"labels": list(declared or found), "clients": []}
            if columns.client:
                facts["clients"] = sorted_names(names_in(records, columns.client, "client"))
            check_labels(records, columns.label, found)
            (staging / _FACTS).write_text(json_text(facts), encoding="utf-8")

        folder = cache_folder(self.options.cache_dir) / "tables" / key[:32]
        cached_folder(folder, is_whole=_is_whole, build=build)
        return dict(json.loads((folder / _FACTS).read_text(encoding="utf-8")))

    def load(
        self,
        split: Split,
        path: str | None,
        *,
        text: str | None = None,
        cache_dir: Path | None = None,
    ) -> Labelled:
        """Read a split, which may be a part of the training table."""
        columns, share = self.options.columns, self.options.test_share
        path, source = self._source(split, path)
        wanted = [*columns.text, *columns.text_pair, needed("label", columns.label)]
        has_clients = columns.client is not None and (
            source == "train" or columns.client in columns_of(path, source)
        )
        has_groups = columns.group is not None and source == "train"
        wanted += [str(columns.client)] * has_clients + [str(columns.group)] * has_groups
        records = read_records(path, source, wanted)
        labels = names_in(records, columns.label, "label")
        owners = None
        if has_clients:
            index = {name: number for number, name in enumerate(self.client_names)}
            # Whose test data are is worth a note, but nothing depends on it.
            names = names_in(records, columns.client, "client", gaps=source == "test")
            owners = np.array([index.get(name, -1) for name in names], dtype=np.int64)
        found = Labelled(
            _texts(records, needed("text", columns.text)),
            label_numbers(records, labels, self.LABELS, str(columns.label)),
            _texts(records, columns.text_pair) if columns.text_pair else None,
            owners,
            group_numbers(records, str(columns.group)) if has_groups else None,
        )
        if share is None:
            return found
        mask = mask_of_test(self.options, found)
        return found.take(np.flatnonzero(mask if split == "test" else ~mask))

    def source_digest(
        self, split: Split, path: str | None, *, cache_dir: Path | None = None
    ) -> str:
        path, source = self._source(split, path)
        share = self.options.test_share
        return _digest(
            [
                table_digest(path, source),
                self._columns,
                self.LABELS,
                self.client_names,
                share and [share, self.options.data_seed],
            ]
        )

    @property
    def _columns(self) -> dict[str, Any]:
        """Return what a run chooses of the columns, as the digests of all jobs have it."""
        chosen, names = self.options.columns, ["text", "text_pair", "label", "client"]
        names += ["group"] * (chosen.group is not None)
        return {name: getattr(chosen, name) for name in names}

    def _source(self, split: Split, path: str | None) -> tuple[str, Split]:
        """Return the table that a split is read from, and the split that this table is of."""
        source: Split = "train" if self.options.test_share is not None else split
        return require_path("table", source, self.options.paths[source]), source


@dataclass(frozen=True)
class TableClassification(Classification):
    """The classification of a table of one's own, whose rows may say whose they are."""

    corpus: OwnTable

    def client_names(self) -> list[str]:
        return list(self.corpus.client_names)

    def owners(self, examples: Examples) -> Indices | None:
        assert isinstance(examples, TokenisedExamples)
        return examples.owners  # test tables need not name clients


def own_table(options: TaskOptions) -> TableClassification:
    """Make the task of a table."""
    return TableClassification("table", OwnTable(options), options)


def _texts(records: Records, columns: Sequence[str]) -> list[str]:
    """Join the cells of each row by a space; a cell that is missing is left out."""
    cells = [[cell_text(records, row, column) for row in range(len(records))] for column in columns]
    texts = [" ".join(filter(None, parts)) for parts in zip(*cells, strict=True)]
    refuse_missing(records, [not text for text in texts], " and ".join(columns), "the text")
    return texts


def _digest(content: Any) -> str:
    text = json.dumps([content, _FORMAT_VERSION], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _is_whole(folder: Path) -> bool:
    try:
        return isinstance(json.loads((folder / _FACTS).read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False
