"""What each client trains and keeps: values of the vector in its memory, which are never sent."""

from torch import Tensor

from scaling_fl.core.state import Tensors

PERSONAL = "personal"
"""The key under which a client remembers its values at the personal coordinates."""


def with_own(vector: Tensor, personal: Tensor | None, memory: Tensors) -> Tensor:
    """Return a vector with what a client has kept; the vector itself if it has kept nothing.

    ``personal`` marks the coordinates that clients keep (bool of the vector's size; None: none).
    """
    if personal is None or PERSONAL not in memory:
        return vector
    return vector.masked_scatter(personal.to(vector.device), memory[PERSONAL].to(vector.device))


def own_of(trained: Tensor, personal: Tensor | None) -> Tensors:
    """Return what a client must remember of the vector that it trained."""
    return {} if personal is None else {PERSONAL: trained[personal.to(trained.device)]}
