"""Evaluation of the global state, sharded over the workers."""

from torch import Tensor

from scaling_fl.core.exchange import Exchange
from scaling_fl.learning.tasks.classification.scoring import count, metrics
from scaling_fl.learning.text.batches import collate, evaluation_batches
from scaling_fl.learning.text.tokenised import TokenisedExamples
from scaling_fl.learning.training.local import LocalTrainer


class Evaluator:
    """Evaluates on batches that are the same for every number of workers."""

    def __init__(
        self,
        trainer: LocalTrainer,
        examples: TokenisedExamples,
        label_names: list[str],
        *,
        batch_size: int,
        pad_token_id: int,
        per_class: bool,
    ) -> None:
        self._trainer, self._examples, self._label_names = trainer, examples, label_names
        self._batches = evaluation_batches(examples.lengths, batch_size)
        self._pad_token_id, self._per_class = pad_token_id, per_class

    def __call__(self, vector: Tensor, exchange: Exchange) -> dict[str, float]:
        """Return the validation metrics of a global vector; the same on every worker."""
        self._trainer.vector.copy_(vector)
        mine = self._batches[exchange.rank :: exchange.size]
        counts = count(
            self._trainer.model,
            (collate(self._examples, i, pad_token_id=self._pad_token_id) for i in mine),
            num_labels=len(self._label_names),
            device=vector.device,
        )
        return metrics(exchange.total(counts), self._label_names, per_class=self._per_class)
