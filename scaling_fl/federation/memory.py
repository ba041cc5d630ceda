"""The memory of clients from one turn to the next, equal on all workers.

Every worker has the memory of every client, because any worker may run a client's next turn.
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
    """Give every worker the memory of the clients of all workers.

    ``mine`` is the memory of this worker's clients (fp32). ``shapes`` are the shapes of the memory
    of all clients; all workers must pass the same shapes.
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
    """Give every worker a tensor that one worker has: the sum of its bits and of zeros."""
    if exchange.size == 1 and tensor is not None:
        return tensor
    bits = torch.zeros(shape, dtype=torch.int64, device=device)
    if tensor is not None:
        bits.copy_(tensor.view(torch.int32))
    return exchange.total(bits).to(torch.int32).view(torch.float32)
