"""What a client does with the global vector: optimiser steps on its own examples."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from scaling_fl.core.vector import Layout, flatten_parameters
from scaling_fl.learning.models.base import Base
from scaling_fl.learning.models.own_scale import b_times, output_times
from scaling_fl.learning.task import Batch, BatchLoss, LossFunction
from scaling_fl.learning.training.optimisers import forget, make_optimiser

Progress = Callable[[int, float], None]
"""(steps done, loss of the last one)"""


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What was measured during a training, at each step before the model changed.

    ``metrics`` are means over all steps: the ``loss`` (0 if there was no step) and whatever the
    task measures beside the loss.
    """

    metrics: dict[str, float]
    num_steps: int
    num_seen: int
    """Examples that the steps saw, repeats included."""

    @property
    def loss(self) -> float:
        return self.metrics["loss"]

    @classmethod
    def over(cls, results: "Sequence[TrainingResult]") -> "TrainingResult":
        """Put several trainings together; every example has the same weight."""
        seen = sum(r.num_seen for r in results)
        totals = {"loss": 0.0} | {
            name: math.fsum(r.metrics.get(name, 0.0) * r.num_seen for r in results)
            for name in dict.fromkeys(name for r in results for name in r.metrics)
        }
        return cls(
            metrics={name: total / max(seen, 1) for name, total in totals.items()},
            num_steps=sum(r.num_steps for r in results),
            num_seen=seen,
        )


class _Sums:
    """The sums of all steps of one training, kept on the model's device."""

    def __init__(self, device: torch.device) -> None:
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._others: dict[str, Tensor] = {}
        self._weight: int | Tensor = 0
        self.num_steps = self.num_seen = 0

    def add(self, found: BatchLoss, num_examples: int) -> None:
        self._loss += found.mean.double() * found.weight
        for name, value in found.sums.items():
            self._others[name] = self._others.get(name, 0) + value
        self._weight = self._weight + found.weight
        self.num_steps += 1
        self.num_seen += num_examples

    def result(self) -> TrainingResult:
        divisor = max(float(self._weight), 1.0)
        totals = {"loss": self._loss} | self._others
        return TrainingResult(
            metrics={name: float(total) / divisor for name, total in totals.items()},
            num_steps=self.num_steps,
            num_seen=self.num_seen,
        )


class LocalTrainer:
    """One model and one optimiser for all clients of a worker, which train one after another.

    The model's trainable parameters are views of ``vector``: a client begins with one copy into
    ``vector``, and its update is one subtraction. A client leaves nothing behind for the next one.
    The trainer does not know what a batch holds; ``loss`` knows.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LossFunction,
        *,
        optimiser: str,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
        prox_mu: float = 0.0,
        autocast_dtype: torch.dtype | None = None,
        batches_per_step: int = 1,
    ) -> None:
        self.model, self.loss = model, loss
        self.layout: Layout
        self.layout, self.vector = flatten_parameters(model)
        self.base = Base(model, self.layout)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._max_grad_norm, self._prox_mu = max_grad_norm, prox_mu
        self._autocast_dtype, self._batches_per_step = autocast_dtype, batches_per_step
        self._optimiser = make_optimiser(
            optimiser, self._parameters, weight_decay=weight_decay, momentum=momentum
        )

    def train(
        self,
        received: Tensor,
        batches: Iterable[Batch],
        *,
        learning_rate: float,
        seed: int,
        trainable: Tensor | None = None,
        correction: Tensor | None = None,
        adapter_scale: float = 1.0,
        progress: Progress | None = None,
    ) -> TrainingResult:
        """Train from ``received`` (fp32, the layout's size); ``vector`` then holds the result.

        ``seed`` decides the dropout masks. ``trainable`` lists the coordinates that may change
        (None: all). A parameter that has none of them stays as it is. In any other parameter,
        ``received`` is zero at the other coordinates, so that weight decay does not change them.
        ``correction`` (fp32, the layout's size) is added to the gradient of every step after the
        gradient was clipped; it needs the optimiser sgd without momentum. ``adapter_scale`` is the
        client's own scale of the adapter over that of the model: the steps are those of B over it.
        """
        if adapter_scale == 1.0:
            return self._train(
                received, batches, learning_rate, seed, trainable, correction, progress
            )
        own = b_times(received.clone(), self.layout, 1.0 / adapter_scale)
        with output_times(self.model, adapter_scale):
            result = self._train(own, batches, learning_rate, seed, trainable, correction, progress)
        b_times(self.vector, self.layout, adapter_scale)
        return result

    def _train(
        self,
        received: Tensor,
        batches: Iterable[Batch],
        learning_rate: float,
        seed: int,
        trainable: Tensor | None,
        correction: Tensor | None,
        progress: Progress | None,
    ) -> TrainingResult:
        self._begin(received, learning_rate, seed)
        anchors = list(self.layout.views(received).values()) if self._prox_mu else []
        masks: list[Tensor] = []
        still: list[tuple[Tensor, Tensor]] = []
        if trainable is not None:
            mask = torch.zeros_like(received)
            mask[trainable] = 1.0
            masks = list(self.layout.views(mask).values())
            values = self.layout.views(received).values()
            still = [
                (parameter.data, value)
                for parameter, value, each in zip(self._parameters, values, masks, strict=True)
                if not each.any()
            ]
        device = self.vector.device
        sums = _Sums(device)
        next_report = 0.0
        for group in _groups(batches, self._batches_per_step):
            found = self._step([batch.to(device) for batch in group], anchors, masks)
            if correction is not None:  # SGD's step along a sum is the sum of its steps
                self.vector.add_(correction, alpha=-learning_rate)
            for parameter, value in still:
                parameter.copy_(value)  # weight decay moves it without a gradient
            sums.add(found, sum(map(len, group)))
            if progress and time.monotonic() > next_report:
                progress(sums.num_steps, float(found.mean))
                next_report = time.monotonic() + 0.2
        return sums.result()

    def _begin(self, received: Tensor, learning_rate: float, seed: int) -> None:
        """Give the model the received weights and forget the optimiser's state, in place."""
        torch.manual_seed(seed)
        self.vector.copy_(received)
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate
        forget(self._optimiser)
        self.model.train()

    def _step(
        self, batches: Sequence[Batch], anchors: list[Tensor], masks: list[Tensor]
    ) -> BatchLoss:
        """Do one optimiser step; returns the loss of its batches before the step."""
        self._optimiser.zero_grad(set_to_none=True)
        found = self._gradients(batches)
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
        return found

    def _gradients(self, batches: Sequence[Batch]) -> BatchLoss:
        """Add up the gradients of batches, of which every item (example or token) counts alike."""
        parts = [self._backward(batch, is_alone=len(batches) == 1) for batch in batches]
        if len(parts) == 1:
            return parts[0]
        weight = sum(part.weight for part in parts)
        divisor = max(float(weight), 1.0)
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad.div_(divisor)
        return BatchLoss(
            torch.stack([part.mean * part.weight for part in parts]).sum() / divisor,
            weight,
            {name: torch.stack([p.sums[name] for p in parts]).sum() for name in parts[0].sums},
        )

    def _backward(self, batch: Batch, *, is_alone: bool) -> BatchLoss:
        with torch.autocast(
            self.vector.device.type,
            dtype=self._autocast_dtype,
            enabled=self._autocast_dtype is not None,
        ):
            found = self.loss(self.model, batch)
        (found.mean if is_alone else found.mean * found.weight).backward()
        return found._replace(mean=found.mean.detach())


def _groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Yield so many batches at a time; the last ones may be fewer."""
    rest = iter(batches)
    while group := list(islice(rest, size)):
        yield group
