"""The family of tasks that give a text one of several labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scaling_fl.learning.models.adapter_card import adapter_card
from scaling_fl.learning.models.export import save_adapter, save_classifier
from scaling_fl.learning.models.loading import load_classifier, load_tokenizer
from scaling_fl.learning.options import MakeTask, TaskOptions
from scaling_fl.learning.task import (
    Batch,
    BatchLoss,
    Examples,
    Indices,
    PartitionDescription,
    Split,
)
from scaling_fl.learning.tasks.classification import scoring
from scaling_fl.learning.tasks.classification.labels import OfOneLabel
from scaling_fl.learning.text.labelled import Corpus, DataError, Labelled, subset
from scaling_fl.learning.text.tokenised import TokenisedExamples, tokenise


@dataclass(frozen=True)
class Classification(OfOneLabel):
    """A sequence classifier on the texts of a corpus."""

    name: str
    corpus: Corpus
    options: TaskOptions

    @property
    def label_names(self) -> list[str]:
        return list(self.corpus.LABELS)

    @cached_property
    def tokenizer(self) -> Any:
        pairs = bool(self.options.columns.text_pair)
        return load_tokenizer(self.options.model, self.options.cache_dir, pairs=pairs)

    def load_texts(self, split: Split) -> Labelled:
        """Read the texts of one split, before they are tokenised."""
        options, wanted = self.options, self.options.max_examples[split]
        path, cache_dir = options.paths[split], options.cache_dir
        found = self.corpus.load(split, path, text=options.text, cache_dir=cache_dir)
        if not len(found):
            raise DataError(
                f"the {split} data of {self.name} must hold an example, and hold none; give others."
            )
        return subset(found, wanted, options.data_seed, of_each_client=split == "train")

    def load_examples(self, split: Split) -> TokenisedExamples:
        path, wanted = self.options.paths[split], self.options.max_examples[split]
        seed, text, cache_dir = self.options.data_seed, self.options.text, self.options.cache_dir
        depends_on = {
            "task": self.name,
            "split": split,
            "source": self.corpus.source_digest(split, path, cache_dir=cache_dir),
            "text": text or "",
            "subset": f"{wanted}/{seed}" if wanted else "",
        }
        if self.options.source:
            depends_on["code"] = self.options.source
        if self.options.columns.text_pair:
            depends_on["inputs"] = ",".join(self.tokenizer.model_input_names)
        return tokenise(
            lambda: self.load_texts(split),
            depends_on=depends_on,
            tokenizer=self.tokenizer,
            max_seq_len=self.options.max_seq_len,
            cache_dir=cache_dir,
        )

    def describe(self, examples: Examples, clients: Sequence[Indices]) -> PartitionDescription:
        found = super().describe(examples, clients)
        if self.options.columns.text_pair and not self._separates_pairs():
            more = "; the tokenizer puts nothing between the two texts of a pair"
            return found._replace(sentence=found.sentence + more)
        return found

    def _separates_pairs(self) -> bool:
        backend = self.tokenizer.backend_tokenizer
        alone, beside = (backend.num_special_tokens_to_add(is_pair) for is_pair in (False, True))
        return bool(beside > alone)

    def load_model(self) -> nn.Module:
        return load_classifier(
            self.options.model,
            num_labels=len(self.label_names),
            max_seq_len=self.options.max_seq_len,
            seed=self.options.seed,
            tokenizer=self.tokenizer,
            cache_dir=self.options.cache_dir,
        )

    def loss(self, model: nn.Module, batch: Batch) -> BatchLoss:
        return scoring.loss(model, batch)

    def count(self, model: nn.Module, batch: Batch) -> Tensor:
        return scoring.count(model, batch)

    def largest_batch(self, size: int) -> Batch:
        longest = self.options.max_seq_len
        # A text, because some heads look for the token that ends one.
        tokenizer = self.tokenizer
        row = tokenizer(["a " * longest], truncation=True, max_length=longest)["input_ids"][0]
        row = [*row, *[tokenizer.pad_token_id] * (longest - len(row))]
        mask = torch.ones(size, longest, dtype=torch.int64)
        mask[0, -1] = 0  # without any padding, attention would leave its mask out
        tensors = {
            "input_ids": torch.tensor(row).repeat(size, 1),
            "attention_mask": mask,
            "labels": torch.zeros(size, dtype=torch.int64),
        }
        return Batch(tensors, torch.arange(size).numpy())

    def save_model(self, model: nn.Module, folder: Path) -> None:
        save_classifier(model, folder, label_names=self.label_names, tokenizer=self.tokenizer)

    def save_adapter(self, model: nn.Module, folder: Path, *, base_model: str) -> None:
        save_adapter(
            model,
            folder,
            base_model=base_model,
            peft_type="SEQ_CLS",
            card=adapter_card(base_model, self.label_names, self.tokenizer.pad_token_id),
            tokenizer=self.tokenizer,
        )


def classification(name: str, corpus: Corpus) -> MakeTask:
    """Return what makes the task of classifying a corpus.

    A task of one's own is a module that is a corpus and makes itself a task:

        LABELS = ("ham", "spam")

        def load(split, path, *, text=None, cache_dir=None):
            rows = [line.split("\t") for line in Path(path).read_text().splitlines()]
            labels = np.array([LABELS.index(label) for label, _ in rows])
            return Labelled([message for _, message in rows], labels)

        def source_digest(split, path, *, cache_dir=None):
            return file_digest(path)

        messages = classification("messages", sys.modules[__name__])
    """
    return partial(Classification, name, corpus)
