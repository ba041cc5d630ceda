"""What a client computes of its examples with the model that it trained, for some merges.

Dropout is off. The sizes of statistics differ by many powers of ten, but sums over clients are in
fixed point. So each begins with an exponent e, and the numbers after it are to be multiplied by
2**e.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from scaling_fl.core.errors import UserError
from scaling_fl.core.linears import Linear, linears_of, sizes_of
from scaling_fl.core.vector import Layout
from scaling_fl.learning.task import Batch, LossFunction, Statistic

_AT_ONCE = 8
"""Examples of 24 tokens: more of them together were no faster on a CPU."""


def fisher(model: nn.Module) -> Statistic:
    """Make the diagonal of the empirical Fisher information.

    The mean over examples of the squared gradient of the example's loss, by its own label. It takes
    a pass forward and backward for each example, in batches of one: only so does a gradient belong
    to one example. Its Euclidean norm is from 1/2 to 1.
    Source: arXiv 2111.09832 (section 3.2; with the labels of the data).
    """
    size = Layout.of(model.named_parameters()).size
    return Statistic(1 + size, _mean_of_squares)


def _mean_of_squares(model: nn.Module, loss: LossFunction, examples: Iterable[Batch]) -> Tensor:
    parameters = [p for p in model.parameters() if p.requires_grad]
    total = torch.zeros(sum(p.numel() for p in parameters), device=parameters[0].device)
    number = 0
    with _without_dropout(model):
        for example in examples:
            gradients = torch.autograd.grad(
                loss(model, example).mean, parameters, materialize_grads=True
            )
            total += torch.cat([gradient.flatten() for gradient in gradients]).square()
            number += 1
    mean = total / max(number, 1)
    return _with_exponent(mean, float(torch.linalg.vector_norm(mean, dtype=torch.float64)))


def grams(model: nn.Module) -> Statistic:
    """Make the Gram matrices X^T X / n of the inputs of all linear layers whose weight is trained.

    X has a row for each token (without padding), n counts the examples. Of each matrix, the upper
    triangle is sent, after an exponent of its own; its trace is from 1/2 to 1. It takes a pass
    forward. The matrix is 0 for a layer that is not called as a module, or whose inputs have no
    dimension for the examples.
    Source: arXiv 2212.09849 (RegMean), section 3.

    Raises:
        UserError: there is no such layer.
    """
    linears = linears_of(model)
    if not linears:
        raise UserError(
            "merge.method=regmean needs a linear layer whose weight is trained, got none; train "
            "more of the model, or change merge.method."
        )
    size = sum(1 + linear.num_pairs for linear in linears)
    return Statistic(size, partial(_grams, linears), _most_at_once(model))


def _grams(
    linears: list[Linear], model: nn.Module, loss: LossFunction, examples: Iterable[Batch]
) -> Tensor:
    device = next(model.parameters()).device
    sums = [torch.zeros(each.num_in, each.num_in, device=device) for each in linears]
    number, rows = 0, _Rows()
    with _without_dropout(model), torch.no_grad(), ExitStack() as hooks:
        for linear, total in zip(linears, sums, strict=True):
            layer = model.get_submodule(linear.layer)
            hooks.enter_context(layer.register_forward_pre_hook(partial(rows.add, total)))
        for batch in examples:
            rows.num_examples, rows.mask = len(batch), batch.tensors.get("attention_mask")
            loss(model, batch)
            number += len(batch)
    triangles = []
    for total in sums:
        mean = total / max(number, 1)
        above = torch.triu_indices(*mean.shape, device=device)
        triangles.append(_with_exponent(mean[above[0], above[1]], float(mean.double().trace())))
    return torch.cat(triangles)


class _Rows:
    """Adds what enters a layer to the layer's Gram matrix."""

    num_examples = 1
    mask: Tensor | None = None
    """Which tokens of the examples are no padding: (examples, tokens)."""

    def add(self, total: Tensor, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs = args[0].float()
        if self.num_examples not in inputs.shape[:-1]:
            return  # not the examples: DoRA passes the identity, to know B A
        rows = inputs.flatten(0, -2)
        if self.mask is not None and self.mask.numel() == len(rows):
            tokens_first = inputs.shape[:2] != self.mask.shape == inputs.shape[1::-1]
            mask = self.mask.T if tokens_first else self.mask  # (tokens, examples) as in XLNet
            rows = rows[mask.flatten().bool()]
        total.addmm_(rows.T, rows)


def _most_at_once(model: nn.Module) -> int:
    """Choose a size of batches that differs from the rows of the identity that DoRA passes.

    They are as many as the inputs of the frozen layer.
    """
    frozen = (module for module in model.modules() if not _is_trained(module))
    fewest = min((sizes[0] for sizes in map(sizes_of, frozen) if sizes), default=math.inf)
    return _AT_ONCE if fewest > _AT_ONCE else 1


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _with_exponent(values: Tensor, size: float) -> Tensor:
    """Return e and values / 2**e, with size / 2**e in [1/2, 1); e is 0 for a size of 0."""
    _, exponent = math.frexp(size)
    scaled = (values.double() * 2.0**-exponent).float()
    return torch.cat([torch.tensor([float(exponent)], device=values.device), scaled])


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation, and each of its modules back into what it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
