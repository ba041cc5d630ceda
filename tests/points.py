"""A task without texts and labels: three numbers are trained to predict a fourth.

The model is y = w x, the loss (w x - y)**2. All that a task must be is here, in the order in which
``scaling_fl.learning.task`` names it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scaling_fl.learning.options import TaskOptions
from scaling_fl.learning.task import (
    Batch,
    BatchLoss,
    Examples,
    Indices,
    PartitionDescription,
    Split,
)

UNIT = 2.0**20

TRAIN = [([1, 0, 0], 1), ([1, 0, 0], 1), ([0, 1, 0], 2), ([0, 0, 2], 1)]
TEST = [([1, 1, 1], 1), ([2, 2, 2], 2), ([4, 0, 0], 2)]


@dataclass(frozen=True)
class Points:
    """Rows of three numbers, and what each is to give."""

    rows: list[tuple[list[int], int]]
    key: str = "points"

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> Indices:
        return np.ones(len(self), dtype=np.int64)

    @property
    def strata(self) -> Indices:
        return np.zeros(len(self), dtype=np.int64)

    def batch(self, indices: Indices) -> Batch:
        chosen = [self.rows[index] for index in indices]
        tensors = {
            "x": torch.tensor([x for x, _ in chosen], dtype=torch.float32),
            "y": torch.tensor([y for _, y in chosen], dtype=torch.float32),
        }
        return Batch(tensors, indices)


class Line(nn.Module):
    """Three weights, zero at first."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w


@dataclass(frozen=True)
class Regression:
    """The task; beside the loss it measures how far off the predictions are."""

    options: TaskOptions | None = None
    num_counts = 2

    @property
    def meaning(self) -> dict[str, Any]:
        return {"unit": "metres"}

    def load_examples(self, split: Split) -> Points:
        return Points(TRAIN if split == "train" else TEST, key=f"points of {split}")

    def describe(self, examples: Examples, clients: Sequence[Indices]) -> PartitionDescription:
        sizes = [len(each) for each in clients]
        return PartitionDescription({"sizes": sizes}, f"{len(examples)} points")

    def caveat(self, test: Examples) -> str:
        return ""

    def load_model(self) -> nn.Module:
        return Line()

    def heads(self, model: nn.Module) -> list[str]:
        return []

    def loss(self, model: nn.Module, batch: Batch) -> BatchLoss:
        errors = model(batch.tensors["x"]) - batch.tensors["y"]
        return BatchLoss(
            errors.square().mean(), len(batch), {"distance": errors.detach().abs().sum()}
        )

    def count(self, model: nn.Module, batch: Batch) -> Tensor:
        errors = model(batch.tensors["x"]) - batch.tensors["y"]
        total = (errors.double().square() * UNIT).round().long().sum()
        return torch.stack([total, torch.tensor(len(batch))])

    def metrics(self, counts: Tensor, *, detailed: bool) -> dict[str, float]:
        total, number = counts.tolist()
        return {"loss": total / UNIT / number} | ({"points": float(number)} if detailed else {})

    def baseline(self, examples: Examples) -> dict[str, float]:
        return {}

    def largest_batch(self, size: int) -> Batch:
        return Points([([1, 1, 1], 1)] * size).batch(np.arange(size))

    def save_model(self, model: nn.Module, folder: Path) -> None:
        weights: Any = model.get_parameter("w").tolist()
        (folder / "w.txt").write_text(str(weights))

    def save_adapter(self, model: nn.Module, folder: Path, *, base_model: str) -> None:
        self.save_model(model, folder)  # it has no adapter
