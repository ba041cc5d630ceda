"""The task of answering questions about pages: PFL-DocVQA, or a table of one's own like it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scaling_fl.learning.models.adapter_card import document_card
from scaling_fl.learning.models.documents import (
    PageModel,
    load_document_model,
    load_document_tokenizer,
    load_kind,
)
from scaling_fl.learning.models.export import save_adapter, save_document_model
from scaling_fl.learning.options import TaskOptions
from scaling_fl.learning.tables.cells import cell_name, group_numbers
from scaling_fl.learning.tables.records import columns_of, read_records, table_digest
from scaling_fl.learning.tables.sources import require_path
from scaling_fl.learning.task import (
    Batch,
    BatchLoss,
    Examples,
    Indices,
    PartitionDescription,
    Split,
)
from scaling_fl.learning.tasks.documents import scoring
from scaling_fl.learning.tasks.documents.encoding import MOST_ANSWER_TOKENS, PageEncoder, written
from scaling_fl.learning.tasks.documents.examples import DocumentExamples, load_questions
from scaling_fl.learning.tasks.documents.rows import Choice, count_rows
from scaling_fl.learning.tasks.held_out import mask_of_test, trained_by
from scaling_fl.learning.tasks.instruction.rows import client_names_in
from scaling_fl.learning.text.labelled import DataError, subset
from scaling_fl.learning.text.plain_text import serialised


@dataclass(frozen=True)
class DocumentQuestions:
    """A model that reads a page, its words and their boxes, on the questions of a table."""

    options: TaskOptions

    @property
    def meaning(self) -> dict[str, Any]:
        return {}

    @property
    def num_counts(self) -> int:
        return scoring.NUM_COUNTS

    @cached_property
    def tokenizer(self) -> Any:
        return load_document_tokenizer(self.options.model, self.options.cache_dir)

    @cached_property
    def kind(self) -> PageModel:
        return load_kind(self.options.model, self.tokenizer, self.options.cache_dir)

    def choose(self, split: Split) -> Choice:
        """Choose the rows of one split, and say whose they are."""
        path, source = self._source(split)
        rows = np.arange(count_rows(path))
        if not len(rows):
            raise DataError(f"{path}: there must be a question, and there is none; give others.")
        group = self.options.columns.group if source == "train" else None
        groups = group_numbers(read_records(path, source, [group]), group) if group else None
        found, seed = Choice(rows, self._owners(path, source), groups), self.options.data_seed
        if self.options.test_share is not None:
            mask = mask_of_test(self.options, found)
            found = found.take(np.flatnonzero(mask if split == "test" else ~mask))
        wanted = self.options.max_examples[split]
        return subset(found, wanted, seed, of_each_client=split == "train")

    def load_examples(self, split: Split) -> DocumentExamples:
        path, source = self._source(split)
        options, tokenizer, kind = self.options, self.tokenizer, self.kind
        share, wanted = options.test_share, options.max_examples[split]
        clients = self.client_names() if options.columns.client else None
        content: dict[str, Any] = {
            "split": split,
            "data": table_digest(path, source),
            "clients": clients and [options.columns.client, clients],
            "share": share and [share, options.data_seed, *["clients"] * options.holds_out_clients],
            "subset": wanted and [wanted, options.data_seed],
            **({"groups": options.columns.group} if options.columns.group else {}),
        }
        return load_questions(
            path,
            lambda: self.choose(split),
            lambda: PageEncoder(tokenizer, kind.prompt, options.max_seq_len),
            folder=Path(options.images.folder or Path(path).parent),
            side=kind.looks.size,
            content=content,
            depends_on={"tokenizer": serialised(tokenizer), "prompt": kind.prompt},
            pad_token_id=tokenizer.pad_token_id,
            max_seq_len=options.max_seq_len,
            cache_dir=options.cache_dir,
        )

    def _source(self, split: Split) -> tuple[str, Split]:
        """Return the table of a split, and the split that it is of."""
        source: Split = "train" if self.options.test_share is not None else split
        return require_path("docvqa", source, self.options.paths[source]), source

    def client_names(self) -> list[str]:
        path, _ = self._source("train")
        return trained_by(self.options, client_names_in(path, str(self.options.columns.client)))

    def _owners(self, path: str, source: Split) -> Indices | None:
        column = self.options.columns.client
        if column is None or (source == "test" and column not in columns_of(path, source)):
            return None
        numbers = {name: number for number, name in enumerate(self.client_names())}
        records = read_records(path, source, [column])
        names = (cell_name(records, row, column) for row in range(len(records)))
        return np.array([numbers.get(name or "", -1) for name in names], dtype=np.int64)

    def owners(self, examples: Examples) -> Indices | None:
        assert isinstance(examples, DocumentExamples)
        owners = examples.owners
        return None if owners is None or (owners < 0).all() else owners

    def describe(self, examples: Examples, clients: Sequence[Indices]) -> PartitionDescription:
        assert isinstance(examples, DocumentExamples)
        tokens = [int(examples.lengths[indices].sum()) for indices in clients]
        fields = {"tokens": tokens, "num_cut": examples.num_cut, "pages": len(examples.images)}
        sentence = (
            f"{len(examples)} questions about {len(examples.images)} pages, {sum(tokens):,} tokens"
        )
        if examples.num_cut:
            sentence += f"; {examples.num_cut} cut at max_seq_len={examples.max_seq_len}"
        return PartitionDescription(fields, sentence)

    def caveat(self, test: Examples) -> str:
        return ""

    def load_model(self) -> nn.Module:
        return load_document_model(
            self.options.model,
            self.kind,
            seed=self.options.seed,
            tokenizer=self.tokenizer,
            cache_dir=self.options.cache_dir,
        )

    def heads(self, model: nn.Module) -> list[str]:
        return list(self.kind.heads)

    def loss(self, model: nn.Module, batch: Batch) -> BatchLoss:
        return scoring.loss(model, batch, self.kind.looks)

    def count(self, model: nn.Module, batch: Batch) -> Tensor:
        return scoring.count(model, batch, self.kind.looks, self.tokenizer)

    def metrics(self, counts: Tensor, *, detailed: bool) -> dict[str, float]:
        return scoring.metrics(counts)

    def baseline(self, examples: Examples) -> dict[str, float]:
        return {}  # what a model knows of a language is worth more than to ignore the page

    def largest_batch(self, size: int) -> Batch:
        width, side = self.options.max_seq_len, self.kind.looks.size
        ids = torch.full((size, width), self.tokenizer.eos_token_id)
        tensors = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "boxes": torch.zeros(size, width, 4, dtype=torch.int64),
            "labels": ids[:, :1].repeat(1, MOST_ANSWER_TOKENS),
            "answers": torch.from_numpy(written([""]).copy()).repeat(size, 1),
            "pixels": torch.zeros(size, side, side, 3, dtype=torch.uint8),
        }
        return Batch(tensors, np.arange(size))

    def save_model(self, model: nn.Module, folder: Path) -> None:
        save_document_model(model, folder, tokenizer=self.tokenizer)

    def save_adapter(self, model: nn.Module, folder: Path, *, base_model: str) -> None:
        save_adapter(
            model,
            folder,
            base_model=base_model,
            peft_type=None,
            card=document_card(base_model),
            tokenizer=self.tokenizer,
        )
