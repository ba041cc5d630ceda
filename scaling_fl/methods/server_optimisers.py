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
    learning_rate: float,
    *,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float = 0.0,
    bias_correction: bool = True,
) -> ServerOptimiser:
    """Step x += lr * mean(u) / (sqrt(mean(u**2)) + epsilon), with decaying means.

    With ``bias_correction``, both means start at 0 and are corrected for that start: as
    torch.optim.AdamW, and as torch.optim.Adam where the weight decay is 0. Without, nothing is
    corrected, and the mean of squares starts at epsilon**2: FedAdam.

    Source: arXiv 1412.6980, algorithm 1; arXiv 1711.05101, algorithm 2 (decoupled weight decay);
    arXiv 2003.00295, algorithm 2 (FedAdam; epsilon is its tau).
    """

    def apply(vector: Tensor, update: Tensor, state: State) -> None:
        divisor, root = _correct(state, beta1, beta2)
        for x, u, mean, square in _chunks(vector, update, state["mean"], state["square"]):
            if weight_decay:
                x.mul_(1 - learning_rate * weight_decay)
            mean.lerp_(u, 1 - beta1)
            square.mul_(beta2).addcmul_(u, u, value=1 - beta2)
            x.addcdiv_(mean, square.sqrt().div_(root).add_(epsilon), value=learning_rate / divisor)

    return ServerOptimiser(_moments(epsilon, bias_correction), _on_copies(apply))


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


def yogi(
    learning_rate: float,
    *,
    beta1: float,
    beta2: float,
    epsilon: float,
    bias_correction: bool = False,
) -> ServerOptimiser:
    """Step as adam, but with square -= (1 - beta2) * sign(square - u**2) * u**2.

    As adam's, the means are corrected or not; the paper does not.

    Source: arXiv 2003.00295, algorithm 2 (FedYogi; epsilon is its tau).
    """

    def apply(vector: Tensor, update: Tensor, state: State) -> None:
        divisor, root = _correct(state, beta1, beta2)
        for x, u, mean, square in _chunks(vector, update, state["mean"], state["square"]):
            mean.lerp_(u, 1 - beta1)
            new = u * u
            square.addcmul_((square - new).sign_(), new, value=beta2 - 1)
            x.addcdiv_(mean, square.sqrt().div_(root).add_(epsilon), value=learning_rate / divisor)

    return ServerOptimiser(_moments(epsilon, bias_correction), _on_copies(apply))


def _moments(epsilon: float, bias_correction: bool) -> Callable[[Tensor], State]:
    """Return the ``init`` of an optimiser with a mean and a mean square."""

    def init(vector: Tensor) -> State:
        steps = torch.zeros((), dtype=torch.int64, device=vector.device)
        return {
            **({"step": steps} if bias_correction else {}),
            "mean": torch.zeros_like(vector),
            "square": torch.full_like(vector, 0.0 if bias_correction else epsilon**2),
        }

    return init


def _correct(state: State, beta1: float, beta2: float) -> tuple[float, float]:
    """Count a step; return what to divide the mean and the root of the mean square by."""
    if "step" not in state:
        return 1.0, 1.0
    step = int(state["step"].add_(1))
    return 1 - beta1**step, (1 - beta2**step) ** 0.5


def within(marks: Tensor, optimiser: ServerOptimiser) -> ServerOptimiser:
    """Let an optimiser step at the marked coordinates alone (bool of the vector's size).

    Neither the others nor the state there change, whatever the state would still move.
    """

    def step(vector: Tensor, update: Tensor, state: State) -> tuple[Tensor, State]:
        moved, after = optimiser.step(vector, update, state)
        rested = {
            name: torch.where(marks, value, state[name]) if value.shape == marks.shape else value
            for name, value in after.items()
        }
        return torch.where(marks, moved, vector), rested

    return ServerOptimiser(optimiser.init, step)


def scheduled(
    make: Callable[[float], ServerOptimiser], rate: Callable[[int], float]
) -> ServerOptimiser:
    """Step with a learning rate for each step: ``rate`` of the number of the steps before it.

    As with the schedulers of torch, the first step has the first rate. Source: arXiv 1608.03983.
    """

    def init(vector: Tensor) -> State:
        steps = torch.zeros((), dtype=torch.int64, device=vector.device)
        return {"steps": steps, **make(rate(0)).init(vector)}

    def step(vector: Tensor, update: Tensor, state: State) -> tuple[Tensor, State]:
        own = {name: value for name, value in state.items() if name != "steps"}
        vector, own_after = make(rate(int(state["steps"]))).step(vector, update, own)
        return vector, {"steps": state["steps"] + 1, **own_after}

    return ServerOptimiser(init, step)


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
