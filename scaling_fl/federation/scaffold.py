"""SCAFFOLD: clients correct their steps by what tells their gradients from those of all clients.

Client i remembers its control variate c_i, the mean of its gradients in its last turn, and the
server remembers c, the mean of those of all clients that can take part, in a round or not; at
first, all are 0. The client steps along its gradient + c - c_i. Source: arXiv 1910.06378,
algorithm 1, option II.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from scaling_fl.core.exact_sum import ExactSum
from scaling_fl.core.exchange import Exchange
from scaling_fl.core.state import Tensors
from scaling_fl.methods.merging.merge import Update

CONTROL = "scaffold.control"
"""The name of c in the server's memory, of c_i in a client's, and of its change among payloads."""


def correction(control: Tensor | None, memory: Tensors) -> Tensor | None:
    """Return c - c_i, given c and the client's memory; None without SCAFFOLD."""
    own = memory.get(CONTROL)
    return control if control is None or own is None else control - own


def change(control: Tensor, received: Tensor, trained: Tensor, distance: float) -> Tensor:
    """Return what c_i changes by: (received - trained) / distance - c.

    ``distance`` is the number of steps times their learning rate; if it is 0, nothing changes.
    """
    if not distance:
        return torch.zeros_like(control)
    return (received - trained).div_(distance).sub_(control)


class Controls:
    """The sum of the changes of the clients' control variates in a round, over all workers.

    ``shares`` are the shares of all clients that can take part in the mean of updates, as if all
    did; so c is the gradient of what the federation minimises.
    """

    def __init__(
        self, exchange: Exchange, size: int, device: torch.device, shares: Mapping[int, float]
    ) -> None:
        self._exchange, self._shares = exchange, shares
        self._sum = ExactSum(size, device, exchange.zeros(size, device))

    def add(self, update: Update) -> None:
        """Add the change of a client, which comes beside its update."""
        self._sum.add(update.extras[CONTROL], self._shares[update.client])

    def after(self, control: Tensor | None) -> Tensor:
        """Return c after the round, given c before it; all workers call this together."""
        self._exchange.total(self._sum.integers)
        sums = self._sum
        found = sums.mean(torch.empty(sums.integers.numel(), device=sums.integers.device), 1.0)
        sums.clear()
        return found if control is None else found.add_(control)
