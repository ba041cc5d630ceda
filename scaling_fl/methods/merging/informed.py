"""Merges that know, by statistics of the clients' examples, which values matter to which client.

A client's statistic begins with an exponent (see ``learning.statistics``). Both merges add to the
mean update what the statistics say beyond: where they tell nothing, the mean holds.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from scaling_fl.core.linears import Linear
from scaling_fl.methods.merging.merge import Merge, Round, Term, Update, Updates

FLOOR = 1e-6
"""What every coordinate's Fisher information is at least, where that of a client has norm 1."""
CUT_OFF = 1e-6
"""Eigenvalues below this share of the largest count as 0; fp32 cannot tell them from 0."""


def fisher(normalise: bool) -> Merge:
    """Average by the Fisher information: sum(c F u) / sum(c F), coordinate by coordinate.

    ``c`` are the clients' shares. With ``normalise``, the information of each client is divided by
    its norm. Source: arXiv 2111.09832, equation 4.
    """

    def merge(updates: Updates, round: Round) -> Tensor:
        mean = round.total((u.vector, u.share) for u in updates.again())
        largest = 0.0 if normalise else _largest_exponents("fisher", updates, round, [0])[0]

        def weight(update: Update) -> Tensor:
            values = update.extras["fisher"]
            exponent, information = float(values[0]), values[1:]
            norm = float(torch.linalg.vector_norm(information)) or 1.0
            scale = 1 / norm if normalise else 2.0 ** (exponent - largest)
            # Half of it, so that no product with a difference of updates is too large for a sum.
            return (information * scale + FLOOR) / 2

        def differences() -> Iterator[Term]:
            for u in updates.again():
                yield weight(u) * (u.vector - mean), u.share

        above = round.total(differences())
        below = round.total((weight(u), u.share) for u in updates.again())
        return mean + above / below

    return merge


def regmean(off_diagonal: float) -> Merge:
    """Give each linear layer the weight that is nearest to all clients' on their own inputs.

    With the Gram matrix G of a client's inputs, it is W = sum(c G)^+ sum(c G W), where ``c`` are
    the clients' shares; everything else is averaged. ``off_diagonal`` multiplies the entries of G
    beside its diagonal. Source: arXiv 2212.09849 (RegMean), equation 2 and section 3.
    """

    def merge(updates: Updates, round: Round) -> Tensor:
        mean = round.total((u.vector, u.share) for u in updates.again())
        linears = round.linears
        offsets = _offsets([1 + linear.num_pairs for linear in linears])
        largest = _largest_exponents("grams", updates, round, offsets)

        def triangles(update: Update) -> Iterator[Tensor]:
            values = update.extras["grams"]
            for linear, offset, most in zip(linears, offsets, largest, strict=True):
                triangle = values[offset + 1 : offset + 1 + linear.num_pairs]
                scale = 2.0 ** (float(values[offset]) - most)
                yield triangle * (scale * _headroom(linear))  # a power of two: exact

        def sides() -> Iterator[Term]:
            for u in updates.again():
                u.vector.sub_(mean)
                products = [
                    matrix(linear, triangle) @ linear.of(u.vector).double()
                    for linear, triangle in zip(linears, triangles(u), strict=True)
                ]
                yield torch.cat([each.float().flatten() for each in products]), u.share

        def left() -> Iterator[Term]:
            for u in updates.again():
                yield torch.cat(list(triangles(u))), u.share

        matrix = partial(_matrix, off_diagonal=off_diagonal)
        sizes = [linear.num_pairs for linear in linears]
        grams = round.of_size(sum(sizes)).total(left()).split(sizes)
        sizes = [linear.num_in * linear.num_out for linear in linears]
        products = round.of_size(sum(sizes)).total(sides()).split(sizes)
        jobs = (
            partial(_solve, matrix(linear, triangle), product.view(linear.num_in, -1))
            for linear, triangle, product in zip(linears, grams, products, strict=True)
        )
        for linear, moved in zip(linears, round.spread(jobs), strict=True):
            linear.of(mean).add_(moved.view(linear.num_in, linear.num_out))
        return mean

    return merge


def _offsets(sizes: Sequence[int]) -> list[int]:
    return [sum(sizes[:number]) for number in range(len(sizes))]


def _largest_exponents(
    name: str, updates: Updates, round: Round, offsets: Sequence[int]
) -> list[float]:
    """Return the largest of all clients' exponents at each offset of their statistic."""
    found = round.gather((u.client, u.extras[name][list(offsets)]) for u in updates.again())
    largest: list[float] = found.amax(0).tolist()
    return largest


def _matrix(linear: Linear, triangle: Tensor, *, off_diagonal: float) -> Tensor:
    """Return the symmetric matrix of an upper triangle (fp64), off the diagonal scaled."""
    size = linear.num_in
    matrix = torch.zeros(size, size, dtype=torch.float64, device=triangle.device)
    above = torch.triu_indices(size, size, device=triangle.device)
    matrix[above[0], above[1]] = triangle.double()
    diagonal = matrix.diag()
    whole: Tensor = off_diagonal * (matrix + matrix.T).fill_diagonal_(0) + diagonal.diag()
    return whole


def _headroom(linear: Linear) -> float:
    """Return what keeps products with differences of updates small enough for a sum.

    A matrix of trace 1 makes no column longer, and a column has at most the root of ``in`` times
    its largest entry, of which a difference has two.
    """
    return float(2.0 ** -math.ceil(math.log2(2 * math.sqrt(linear.num_in))))


def _solve(gram: Tensor, products: Tensor) -> Tensor:
    """Return gram^+ @ products, by the eigenvalues of a symmetric matrix that is never negative."""
    values, vectors = torch.linalg.eigh(gram)
    inverse = torch.where(values > CUT_OFF * values[-1], 1 / values, 0.0)
    moved = vectors @ (inverse[:, None] * (vectors.T @ products.double()))
    found: Tensor = moved.float().flatten()
    return found
