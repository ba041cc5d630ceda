"""How the server steps along the merged update. An optimiser is two functions; its state a value.

Source: arXiv 2003.00295, algorithm 1: the negative of the merged update stands for the gradient.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class ServerOptimiser(NamedTuple):
    """``init(vector) -> state`` and ``apply(vector, update, state)``, which steps in place."""

    init: Callable[[Tensor], dict[str, Tensor]]
    apply: Callable[[Tensor, Tensor, dict[str, Tensor]], None]


def sgd(learning_rate: float) -> ServerOptimiser:
    """Add the update times the learning rate; with 1 this is FedAvg (arXiv 1602.05629)."""

    def apply(vector: Tensor, update: Tensor, state: dict[str, Tensor]) -> None:
        vector.add_(update, alpha=learning_rate)

    return ServerOptimiser(init=lambda vector: {}, apply=apply)


SERVER_OPTIMISERS: dict[str, Callable[[float], ServerOptimiser]] = {"sgd": sgd}
