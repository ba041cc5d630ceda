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


def sizes_of(module: nn.Module) -> tuple[int, int] | None:
    """Return the numbers of inputs and outputs of a linear layer; None: the module is none."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if type(module).__name__ != "Conv1D":
        return None
    assert isinstance(module.weight, Tensor)
    num_in, num_out = module.weight.shape
    return num_in, num_out


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
        place, sizes = places.get(f"{layer}.weight".lstrip(".")), sizes_of(module)
        if place and sizes and uses[id(module.weight)] == 1:
            found.append(Linear(layer, place, *sizes, in_first=not isinstance(module, nn.Linear)))
    return sorted(found, key=lambda linear: linear.place.start)
