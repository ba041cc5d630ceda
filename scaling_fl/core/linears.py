"""The linear layers of a model whose weights are trained, and the places of these in the vector."""

from collections import Counter
from typing import NamedTuple

from torch import Tensor, nn

from scaling_fl.core.vector import Layout


class Linear(NamedTuple):
    """The weight of one linear layer."""

    layer: str
    """The name of the module; it is called with inputs (..., in)."""
    place: slice
    num_in: int
    num_out: int
    in_first: bool = False
    """Whether the weight is stored as (in x out), as in GPT-2, and not as (out x in)."""

    def of(self, vector: Tensor) -> Tensor:
        """Return the weight (in x out) as a view into the vector."""
        weight = vector[self.place]
        if self.in_first:
            return weight.view(self.num_in, self.num_out)
        return weight.view(self.num_out, self.num_in).T

    @property
    def num_pairs(self) -> int:
        """Count the numbers of a symmetric matrix (in x in)."""
        return self.num_in * (self.num_in + 1) // 2


def linears_of(model: nn.Module) -> list[Linear]:
    """List the layers in the order of the vector, without weights that two modules share."""
    layout = Layout.of(model.named_parameters())
    places = dict(zip(layout.names, layout.places, strict=True))
    uses = Counter(
        id(parameter)
        for module in model.modules()
        for parameter in module.parameters(recurse=False)
    )
    found: list[Linear] = []
    for layer, module in model.named_modules():
        place = places.get(f"{layer}.weight".lstrip("."))
        is_conv1d = type(module).__name__ == "Conv1D"
        if place and (isinstance(module, nn.Linear) or is_conv1d) and uses[id(module.weight)] == 1:
            weight = module.weight
            assert isinstance(weight, Tensor)
            num_in, num_out = weight.shape if is_conv1d else reversed(weight.shape)
            found.append(Linear(layer, place, num_in, num_out, is_conv1d))
    return sorted(found, key=lambda linear: linear.place.start)
