"""What clients remember from one of their rounds to the next, the same on all workers.

Every worker holds the memory of every client, because any worker may run any client's next turn.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from scaling_fl.core.exchange import Exchange
from scaling_fl.core.state import Tensors


def memories_of_all(
    mine: Mapping[int, Tensors],
    shapes: Mapping[int, Mapping[str, list[int]]],
    exchange: Exchange,
    device: torch.device,
) -> dict[int, dict[str, Tensor]]:
    """Give every worker what the clients of all workers remember.

    ``mine`` is what the clients of this worker remember (fp32), ``shapes`` the shapes of what the
    clients of all workers do; every worker must give the same shapes.
    """
    return {
        client: {
            name: _from_its_worker(mine.get(client, {}).get(name), shape, exchange, device)
            for name, shape in sorted(tensors.items())
        }
        for client, tensors in sorted(shapes.items())
        if tensors
    }


def _from_its_worker(
    tensor: Tensor | None, shape: list[int], exchange: Exchange, device: torch.device
) -> Tensor:
    """Send one tensor: its bits, as an integer sum with nothing else."""
    if exchange.size == 1 and tensor is not None:
        return tensor
    bits = torch.zeros(shape, dtype=torch.int64, device=device)
    if tensor is not None:
        bits.copy_(tensor.view(torch.int32))
    return exchange.total(bits).to(torch.int32).view(torch.float32)
