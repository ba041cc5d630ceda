"""How the server steps along the merged update. An optimiser is two functions; its state a value.

The gradient is minus the merged update u. The optimiser also steps when u is 0. Below, x is the
global vector and lr the learning rate. Source: arXiv 2003.00295 (FedOpt), algorithm 1.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

State = Mapping[str, Tensor]

CHUNK = 1 << 18  # values whose temporaries stay in a core's cache


class ServerOptimiser(NamedTuple):
    """``init(vector) -> state`` and ``step(vector, update, state) -> (vector, state)``.

    The vectors and the tensors of the state are fp32 of one length; only the number of steps is an
    int64. A step does not change its arguments. Equal arguments give bitwise equal results.
    """

    init: Callable[[Tensor], State]
    step: Callable[[Tensor, Tensor, State], tuple[Tensor, State]]


def sgd(learning_rate: float, *, momentum: float = 0.0) -> ServerOptimiser:
    """Step x += lr * u; with momentum, m = momentum * m + u and x += lr * m.

    As torch.optim.SGD.

    Source: arXiv 1602.05629 (FedAvg, with learning rate 1); arXiv 1909.06335 (FedAvgM).
    """

    def init(vector: Tensor) -> State:
        return {"momentum": torch.zeros_like(vector)} if momentum else {}

    def step(vector: Tensor, update: Tensor, state: State) -> tuple[Tensor, State]:
        if momentum:
            update = (state["momentum"] * momentum).add_(update)
            state = {"momentum": update}
        return torch.add(vector, update, alpha=learning_rate), state

    return ServerOptimiser(init, step)


def adam(
    learning_rate: float, *, beta1: float, beta2: float, epsilon: float, weight_decay: float = 0.0
) -> ServerOptimiser:
    """Step x += lr * mean(u) / (sqrt(mean(u**2)) + epsilon), with decaying means.

    Both means start at 0 and are corrected for that start; FedAdam in the paper does not correct
    them. As torch.optim.AdamW, and as torch.optim.Adam where the weight decay is 0.

    Source: arXiv 1412.6980, algorithm 1; arXiv 1711.05101, algorithm 2 (decoupled weight decay).
    """

    def init(vector: Tensor) -> State:
        return {
            "step": torch.zeros((), dtype=torch.int64, device=vector.device),
            "mean": torch.zeros_like(vector),
            "square": torch.zeros_like(vector),
        }

    def apply(vector: Tensor, update: Tensor, state: State) -> None:
        step = int(state["step"].add_(1))
        rate, root = learning_rate / (1 - beta1**step), (1 - beta2**step) ** 0.5
        for x, u, mean, square in _chunks(vector, update, state["mean"], state["square"]):
            if weight_decay:
                x.mul_(1 - learning_rate * weight_decay)
            mean.lerp_(u, 1 - beta1)
            square.mul_(beta2).addcmul_(u, u, value=1 - beta2)
            x.addcdiv_(mean, square.sqrt().div_(root).add_(epsilon), value=rate)

    return ServerOptimiser(init, _on_copies(apply))


def adagrad(learning_rate: float, *, epsilon: float) -> ServerOptimiser:
    """Step x += lr * u / (sqrt(sum(u**2)) + epsilon); the sum over all steps starts at 0.

    As torch.optim.Adagrad.

    Source: Duchi et al., JMLR 12 (2011), 2121, figure 1.
    """

    def init(vector: Tensor) -> State:
        return {"sum": torch.zeros_like(vector)}

    def apply(vector: Tensor, update: Tensor, state: State) -> None:
        for x, u, total in _chunks(vector, update, state["sum"]):
            total.addcmul_(u, u)
            x.addcdiv_(u, total.sqrt().add_(epsilon), value=learning_rate)

    return ServerOptimiser(init, _on_copies(apply))


def yogi(learning_rate: float, *, beta1: float, beta2: float, epsilon: float) -> ServerOptimiser:
    """Step as adam, but with square -= (1 - beta2) * sign(square - u**2) * u**2.

    As in the paper, the means are not corrected for their start, and the square starts at
    epsilon**2.

    Source: arXiv 2003.00295, algorithm 2 (FedYogi; epsilon is its tau).
    """

    def init(vector: Tensor) -> State:
        return {
            "mean": torch.zeros_like(vector),
            "square": torch.full_like(vector, epsilon**2),
        }

    def apply(vector: Tensor, update: Tensor, state: State) -> None:
        for x, u, mean, square in _chunks(vector, update, state["mean"], state["square"]):
            mean.lerp_(u, 1 - beta1)
            new = u * u
            square.addcmul_((square - new).sign_(), new, value=beta2 - 1)
            x.addcdiv_(mean, square.sqrt().add_(epsilon), value=learning_rate)

    return ServerOptimiser(init, _on_copies(apply))


def _on_copies(
    apply: Callable[[Tensor, Tensor, State], None],
) -> Callable[[Tensor, Tensor, State], tuple[Tensor, State]]:
    """Turn a step that writes to its arguments into one that returns new tensors."""

    def step(vector: Tensor, update: Tensor, state: State) -> tuple[Tensor, State]:
        vector, state = vector.clone(), {name: value.clone() for name, value in state.items()}
        apply(vector, update, state)
        return vector, state

    return step


def _chunks(*vectors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Split vectors into chunks at the same indices, so that every temporary is short."""
    return zip(*(vector.split(CHUNK) for vector in vectors), strict=True)


SERVER_OPTIMISERS: dict[str, Callable[..., ServerOptimiser]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adam,
    "adagrad": adagrad,
    "yogi": yogi,
}
