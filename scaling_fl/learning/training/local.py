"""What a client does with the global vector: optimiser steps on its own examples."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from scaling_fl.core.vector import Layout, flatten_parameters
from scaling_fl.learning.text.batches import Batch

OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}

Progress = Callable[[int, float], None]
"""(steps done, loss of the last one)"""


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """Means over the examples that the steps saw, as they were seen (the model was changing)."""

    loss: float
    accuracy: float
    num_steps: int
    num_seen: int
    """Examples that the steps saw, repeats included."""

    @classmethod
    def over(cls, results: "Sequence[TrainingResult]") -> "TrainingResult":
        """Put several trainings together."""
        seen = sum(r.num_seen for r in results)
        return cls(
            loss=math.fsum(r.loss * r.num_seen for r in results) / max(seen, 1),
            accuracy=math.fsum(r.accuracy * r.num_seen for r in results) / max(seen, 1),
            num_steps=sum(r.num_steps for r in results),
            num_seen=seen,
        )


class LocalTrainer:
    """One resident model and one optimiser, lent to one client after another.

    The model's trainable parameters are views of ``vector``, so that a client starts by one copy
    and its update is one subtraction. Nothing of a client outlives its turn.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        optimiser: str,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
        prox_mu: float = 0.0,
        autocast_dtype: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.layout: Layout
        self.layout, self.vector = flatten_parameters(model)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._max_grad_norm, self._prox_mu = max_grad_norm, prox_mu
        self._autocast_dtype = autocast_dtype
        options = {"momentum": momentum} if optimiser == "sgd" else {}
        # The fused step is one pass over memory; on a CPU several times the default's speed.
        self._optimiser = OPTIMISERS[optimiser](
            self._parameters, lr=0.0, weight_decay=weight_decay, fused=True, **options
        )

    def train(
        self,
        start: Tensor,
        batches: Iterable[Batch],
        *,
        learning_rate: float,
        seed: int,
        trainable: Tensor | None = None,
        progress: Progress | None = None,
    ) -> TrainingResult:
        """Train from ``start`` (fp32, the layout's size); ``vector`` then holds the result.

        ``seed`` decides the dropout masks. ``trainable`` lists the coordinates that may change
        (None: all); ``start`` is zero elsewhere, so that weight decay leaves the rest alone, too.
        """
        self._begin(start, learning_rate, seed)
        anchors = list(self.layout.views(start).values()) if self._prox_mu else []
        masks: list[Tensor] = []
        if trainable is not None:
            mask = torch.zeros_like(start)
            mask[trainable] = 1.0
            masks = list(self.layout.views(mask).values())
        device = self.vector.device
        loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        num_correct = torch.zeros((), dtype=torch.int64, device=device)
        num_seen = num_steps = 0
        next_report = 0.0
        for batch in batches:
            loss, correct = self._step(batch.to(device), anchors, masks)
            loss_sum += loss.double() * len(batch)
            num_correct += correct
            num_seen += len(batch)
            num_steps += 1
            if progress and time.monotonic() > next_report:
                progress(num_steps, float(loss))
                next_report = time.monotonic() + 0.2
        divisor = max(num_seen, 1)
        return TrainingResult(
            loss=float(loss_sum) / divisor,
            accuracy=float(num_correct) / divisor,
            num_steps=num_steps,
            num_seen=num_seen,
        )

    def _begin(self, start: Tensor, learning_rate: float, seed: int) -> None:
        """Make the model the global one and the optimiser a fresh one, without new memory."""
        torch.manual_seed(seed)
        self.vector.copy_(start)
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate
        for state in self._optimiser.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    value.zero_()
        self.model.train()

    def _step(
        self, batch: Batch, anchors: list[Tensor], masks: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Do one optimiser step; returns the batch's mean loss and its number of right answers."""
        with torch.autocast(
            self.vector.device.type,
            dtype=self._autocast_dtype,
            enabled=self._autocast_dtype is not None,
        ):
            logits = self.model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask
            ).logits
        loss = cross_entropy(logits.float(), batch.labels)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        for parameter, anchor in zip(self._parameters, anchors, strict=False):
            # The gradient of mu/2 * |w - w_global|^2. Source: arXiv 1812.06127, equation 2.
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - anchor, alpha=self._prox_mu)
        for parameter, mask in zip(self._parameters, masks, strict=False):
            if parameter.grad is not None:
                parameter.grad.mul_(mask)
        if self._max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm, foreach=True)
        self._optimiser.step()
        return loss.detach(), (logits.detach().argmax(-1) == batch.labels).sum()
