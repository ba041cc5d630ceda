"""The family of tasks that teach a causal language model to answer instructions."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scaling_fl.learning.models.adapter_card import causal_card
from scaling_fl.learning.models.causal import load_causal, load_causal_tokenizer
from scaling_fl.learning.models.export import save_adapter, save_causal
from scaling_fl.learning.models.packaged import alpaca_folder
from scaling_fl.learning.options import MakeTask, TaskOptions
from scaling_fl.learning.questions.answers import MOST_TOKENS, WrittenAnswers
from scaling_fl.learning.questions.generation import encode_prompts
from scaling_fl.learning.questions.measurements import load_questions
from scaling_fl.learning.tables.records import table_digest
from scaling_fl.learning.task import (
    Batch,
    BatchLoss,
    Examples,
    Indices,
    Measurement,
    PartitionDescription,
    Split,
)
from scaling_fl.learning.tasks.held_out import trained_by
from scaling_fl.learning.tasks.instruction import scoring
from scaling_fl.learning.tasks.instruction.conversations import Conversations, Turn
from scaling_fl.learning.tasks.instruction.examples import InstructionExamples, encode
from scaling_fl.learning.tasks.instruction.labels import Encoder
from scaling_fl.learning.tasks.instruction.rows import (
    ColumnRule,
    client_names_in,
    read_conversations,
)
from scaling_fl.learning.tasks.instruction.templates import Template, template_of
from scaling_fl.learning.text.labelled import DataError, held_out, subset
from scaling_fl.learning.text.plain_text import serialised

_PACKAGED_TEST_SHARE = 0.1


@dataclass(frozen=True)
class InstructionTuning:
    """A causal language model on the conversations of a table."""

    name: str
    rule: ColumnRule
    template_name: str
    options: TaskOptions

    @property
    def meaning(self) -> dict[str, Any]:
        return {"template": self.options.template or self.template_name}

    @property
    def num_counts(self) -> int:
        return scoring.NUM_COUNTS

    @cached_property
    def tokenizer(self) -> Any:
        return load_causal_tokenizer(self.options.model, self.options.cache_dir)

    @cached_property
    def template(self) -> Template:
        return template_of(self.options.template or self.template_name, self.tokenizer)

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder(self.tokenizer, self.template)

    def load_conversations(self, split: Split) -> Conversations:
        """Read the conversations of one split, before they are tokenised."""
        path, source, share = self._source(split)
        options = self.options
        names = self.client_names() if options.columns.client else None
        found = read_conversations(
            path, source, self.rule, options.columns, system=options.system, client_names=names
        )
        if share is not None:
            mask = held_out(found, share, options.data_seed, of_clients=options.holds_out_clients)
            found = found.take(np.flatnonzero(mask if split == "test" else ~mask))
        wanted = options.max_examples[split]
        return subset(found, wanted, options.data_seed, of_each_client=split == "train")

    def load_examples(self, split: Split) -> InstructionExamples:
        path, source, share = self._source(split)
        options = self.options
        columns = options.columns
        wanted = options.max_examples[split]
        content = {
            "task": self.name,
            "split": split,
            "data": table_digest(path, source),
            "columns": [
                *(columns.instruction, columns.response, columns.messages, columns.client),
                *([columns.group] if columns.group else []),
            ],
            "system": options.system,
            "share": share and [share, options.data_seed, *["clients"] * options.holds_out_clients],
            "subset": wanted and [wanted, options.data_seed],
            "code": options.source,
        }
        depends_on = {"template": self.template.source, "tokenizer": serialised(self.tokenizer)}
        return encode(
            lambda: self.load_conversations(split),
            lambda: self.encoder,
            depends_on=depends_on,
            content=content,
            max_seq_len=options.max_seq_len,
            pad_token_id=self.tokenizer.pad_token_id,
            packing=options.packing and split == "train",
            cache_dir=options.cache_dir,
        )

    def _source(self, split: Split) -> tuple[str, Split, float | None]:
        """Return the table of a split, the split that it is of, and the share to hold out of it."""
        share = self.options.test_share
        if not any(self.options.paths.values()):
            path = alpaca_folder(self.options.cache_dir) / "alpaca_en_demo.json"
            return str(path), "train", share or _PACKAGED_TEST_SHARE
        source: Split = "train" if share is not None else split
        path_given = self.options.paths[source]
        if not path_given:
            raise DataError(f"{source}_path must name the {source} data of {self.name}, got none.")
        return path_given, source, share

    def client_names(self) -> list[str]:
        path, _, _ = self._source("train")
        return trained_by(self.options, client_names_in(path, str(self.options.columns.client)))

    def owners(self, examples: Examples) -> Indices | None:
        assert isinstance(examples, InstructionExamples)
        return examples.owners

    def describe(self, examples: Examples, clients: Sequence[Indices]) -> PartitionDescription:
        assert isinstance(examples, InstructionExamples)
        tokens = [int(examples.lengths[indices].sum()) for indices in clients]
        learned = int(examples.trained.sum())
        fields = {
            "tokens": tokens,
            "num_learned_tokens": learned,
            "num_cut": examples.num_cut,
            "num_left_out": examples.num_left_out,
        }
        sentence = (
            f"{len(examples)} conversations of {sum(tokens):,} tokens, {learned:,} of them learned"
        )
        if examples.num_cut:
            sentence += f"; {examples.num_cut} cut at max_seq_len={examples.max_seq_len}"
        if examples.num_left_out:
            sentence += (
                f"; {examples.num_left_out} more have no token of an answer before that and are "
                "left out"
            )
        return PartitionDescription(fields, sentence)

    def caveat(self, test: Examples) -> str:
        assert isinstance(test, InstructionExamples)
        found = [self.encoder.repair] if self.encoder.repair else []
        if test.num_left_out:
            found.append(
                f"{test.num_left_out} test conversations have no token of an answer within "
                f"max_seq_len={test.max_seq_len} and are left out"
            )
        return "; ".join(found)

    def load_model(self) -> nn.Module:
        return load_causal(
            self.options.model,
            max_seq_len=self.options.max_seq_len,
            seed=self.options.seed,
            tokenizer=self.tokenizer,
            cache_dir=self.options.cache_dir,
            packing=self.options.packing,
            load=self.options.load,
        )

    def heads(self, model: Any) -> list[str]:
        return []

    def loss(self, model: nn.Module, batch: Batch) -> BatchLoss:
        return scoring.loss(model, batch)

    def count(self, model: nn.Module, batch: Batch) -> Tensor:
        return scoring.count(model, batch)

    def metrics(self, counts: Tensor, *, detailed: bool) -> dict[str, float]:
        return scoring.metrics(counts)

    def load_measurements(self) -> list[Measurement]:
        options = self.options
        wanted = options.questions.max_generated
        asked = load_questions(
            options.questions,
            self.tokenizer,
            max_seq_len=options.max_seq_len,
            seed=options.data_seed,
        )
        return [*asked, *([self.written(wanted)] if wanted else [])]

    def written(self, max_rows: int) -> Measurement:
        """Have test rows, drawn at random, answered in the model's own words."""
        options = self.options
        rows = subset(self.load_conversations("test"), max_rows, options.data_seed).turns
        prompts = encode_prompts(
            [self.encoder.prompt(turns[:-1]) for turns in rows],
            [MOST_TOKENS] * len(rows),
            max_seq_len=options.max_seq_len,
            tokenizer=self.tokenizer,
        )
        references = [turns[-1].content for turns in rows]
        return WrittenAnswers(prompts, references, self.tokenizer).measurement()

    def ask(self, text: str) -> list[int]:
        """Return the tokens of an instruction of one's own that waits for an answer."""
        system = [Turn("system", self.options.system)] if self.options.system else []
        return self.encoder.prompt([*system, Turn("user", text)])

    def baseline(self, examples: Examples) -> dict[str, float]:
        return {}  # a model that was pre-trained is better than any that ignores its input

    def largest_batch(self, size: int) -> Batch:
        width = self.options.max_seq_len
        ids = torch.full((size, width), self.tokenizer.pad_token_id, dtype=torch.int64)
        rest = {"position_ids": torch.arange(width).repeat(size, 1)}
        if not self.options.packing:
            rest = {"attention_mask": torch.ones_like(ids)}
        return Batch({"input_ids": ids, "labels": ids, **rest}, np.arange(size))

    def save_model(self, model: nn.Module, folder: Path) -> None:
        save_causal(model, folder, tokenizer=self.tokenizer)

    def save_adapter(self, model: nn.Module, folder: Path, *, base_model: str) -> None:
        save_adapter(
            model,
            folder,
            base_model=base_model,
            peft_type="CAUSAL_LM",
            card=causal_card(base_model, self.options.load),
            tokenizer=self.tokenizer,
            splits_special_tokens=False,
        )


def instruction_tuning(name: str, rule: ColumnRule, template: str) -> MakeTask:
    """Return what makes the task of answering the instructions of a table."""
    return partial(InstructionTuning, name, rule, template)
