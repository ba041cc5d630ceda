"""When two global vectors are the same model, and in what they differ if they are not.

Factors A and B of an adapter mean their product B A alone. So two vectors are the same model where
all coordinates are equal, or else where all products are, with what the frozen weights moved by,
and the coordinates outside the pairs.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from scaling_fl.conformance.cases import place
from scaling_fl.conformance.rounds import LAYOUT, SIZE
from scaling_fl.methods.pairs import A, adapter_coordinates, pairs_of

LAYERS = dict(
    zip((name.split(A)[0] for name in LAYOUT.names if A in name), pairs_of(LAYOUT), strict=True)
)
"""The pairs of the layout, by the names of their layers."""
BESIDE = ~adapter_coordinates(LAYOUT)
"""Marks the coordinates outside the pairs."""


class Broken(Exception):
    """A law is broken; the text says in what."""


def products(vector: Tensor) -> dict[str, Tensor]:
    """Return B A of every pair (out x in, fp64), by the name of its layer.

    What follows the vector is what the frozen weights moved by, which is added.
    """
    found = {
        name: pair.b_of(vector).double() @ pair.a_of(vector).double()
        for name, pair in LAYERS.items()
    }
    if len(vector) > SIZE:
        moves = vector[SIZE:].split([product.numel() for product in found.values()])
        for product, move in zip(found.values(), moves, strict=True):
            product += move.view_as(product)
    return found


def check_bits(found: Tensor, expected: Tensor, without: str) -> None:
    """Raise Broken unless two vectors have the same bits."""
    if not torch.equal(found, expected):
        at = int((found != expected).nonzero()[0])
        raise Broken(f"{place(at)} is {found[at]:.9g}, and {expected[at]:.9g} {without}")


def check_coordinates(found: Tensor, expected: Tensor) -> None:
    """Raise Broken unless two vectors have the same coordinates, but for rounding."""
    if not _is_close(found, expected, 1e-6):
        at = int((found - expected).abs().argmax())
        raise Broken(f"{place(at)} is {found[at]:.4g}, and must be {expected[at]:.4g}")


def check_model(
    found: Tensor, expected: Tensor, factor: float = 1.0, of_products: float = 1.0
) -> None:
    """Raise Broken unless two vectors are the same model.

    ``factor`` is that of the expected coordinates, ``of_products`` that of the expected products.
    """
    if len(found) == len(expected) and _is_close(found, factor * expected, 1e-6):
        return
    wrong = [
        (name, product, of_products * wanted)
        for (name, product), wanted in zip(
            products(found).items(), products(expected).values(), strict=True
        )
        if not _is_close(product, of_products * wanted, 1e-5)
    ]
    found, expected = found[:SIZE], expected[:SIZE]
    if not _is_close(found[BESIDE], factor * expected[BESIDE], 1e-6):
        name = LAYOUT.names[-1]
        wrong.append((name, LAYOUT.views(found)[name], factor * LAYOUT.views(expected)[name]))
    for name, one, wanted in wrong[-1:]:
        row, column = divmod(int((one - wanted).abs().argmax()), one.shape[1])
        what = f"B A of {name}" if name in LAYERS else name.removesuffix(".weight")
        raise Broken(
            f"{what}[{row},{column}] is {one[row, column]:.4g}, "
            f"and must be {wanted[row, column]:.4g}"
        )


def unmoved(vector: Tensor, moved: Tensor) -> Iterator[str]:
    """Name entries of the model that differ from 0 where no client moved their row or column.

    ``moved`` marks the coordinates that some client moved.
    """
    stray = vector[:SIZE].bool() & ~moved
    if len(vector) == SIZE and not stray.any():
        return
    for at in (stray & BESIDE).nonzero().flatten().tolist():
        yield place(at)
    for name, product in products(vector).items():
        pair = LAYERS[name]
        rows, columns = pair.b_of(moved).any(1), pair.a_of(moved).any(0)
        is_moved = product.abs() > 1e-6 * product.abs().max()
        for row, column in (is_moved & ~(rows[:, None] & columns)).nonzero().tolist():
            yield f"B A of {name}[{row},{column}]"


def _is_close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    return bool(((found - expected).abs() <= tolerance * scale + 1e-12).all())
