"""What the federation knows between two rounds."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class GlobalState:
    """The vector that all clients start a round from, and the server optimiser's state.

    ``memory`` is what else one round leaves for the next, the same on all workers: an adaptive
    clip, the state that froze the download mask, the clients' residuals of error feedback.
    ``digest`` chains every round so far: two runs with the same digest went through bitwise the
    same states with the same cohorts and the same configuration.
    """

    vector: Tensor
    optimiser: dict[str, Tensor] = field(default_factory=dict)
    memory: dict[str, Tensor] = field(default_factory=dict)
    round: int = 0
    total_bytes: int = 0
    digest: str = ""
