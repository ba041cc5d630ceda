"""What a model answers in its own words, beside the answers that were expected."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from scaling_fl.learning.questions.generation import Prompts, stop_tokens, texts_of, write
from scaling_fl.learning.questions.reading import MOST_AT_ONCE
from scaling_fl.learning.questions.text_scores import NUM_COUNTS, count_texts, metrics_of_texts
from scaling_fl.learning.task import Batch, Measurement

MOST_TOKENS = 128
"""Of an answer; what FederatedScope's FlexLoRA lets a model write (arXiv 2402.11505)."""


@dataclass(frozen=True)
class WrittenAnswers:
    """Prompts, and the text that is expected after each."""

    prompts: Prompts
    references: Sequence[str]
    tokenizer: Any

    def count(self, model: nn.Module, batch: Batch) -> Tensor:
        """Have the model answer; returns the int64 counts of ``text_scores``."""
        written = write(model, batch, stop_tokens(model, self.tokenizer))
        references = [self.references[index] for index in batch.indices]
        counts = count_texts(texts_of(written, self.tokenizer), references)
        return counts.to(batch.tensors["limits"].device)

    def metrics(self, counts: Tensor, detailed: bool) -> dict[str, float]:
        return metrics_of_texts(counts)

    def measurement(self) -> Measurement:
        return Measurement(
            self.prompts, NUM_COUNTS, self.count, self.metrics, most_at_once=MOST_AT_ONCE
        )
