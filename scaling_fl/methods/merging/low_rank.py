"""The weighted sum of products B A, as factors: never as the dense matrix that it stands for.

A product of a client is W_k = scale_k * B_k A_k, with B (out x rank) and A (rank x in). The sum of
the products over clients has the factors [share_k * scale_k * B_k, ...] and [A_k; ...], side by
side, and is exact in them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Factors:
    """A matrix left @ right, in fp64: left (out x k), right (k x in)."""

    left: Tensor
    right: Tensor

    def core(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return (Q, C, P) with Q C P = left @ right, where Q and P^T have orthonormal columns.

        Source: Golub and Van Loan, Matrix Computations, section 5.2 (QR).
        """
        q, upper = torch.linalg.qr(self.left)
        p, lower = torch.linalg.qr(self.right.T)
        return q, upper @ lower.T, p.T

    def norm(self) -> float:
        """Return the Frobenius norm of the matrix."""
        return float(torch.linalg.matrix_norm(self.core()[1]))


def side_by_side(parts: Sequence[Factors]) -> Factors:
    """Return the sum of matrices."""
    return Factors(
        torch.cat([part.left for part in parts], 1), torch.cat([part.right for part in parts])
    )


@dataclass(frozen=True)
class Truncated:
    """The best approximation of a matrix by one of a smaller rank."""

    factors: Factors
    """left = U S and right = V^T, for the largest singular values."""
    kept: Tensor
    """The singular values that are kept, largest first."""
    lost: float
    """The norm of what is left out: the root of the sum of the squares of the other ones."""


def truncate(matrix: Factors, rank: int) -> Truncated:
    """Return the matrix of rank ``rank`` that is nearest to ``matrix``, by its SVD.

    The largest entry of each row of V^T is positive, so that the signs depend on no library. The
    rows of V^T are orthonormal even where the singular value is 0, so that none of them is dead.
    There must be at least ``rank`` rows in ``matrix.right``.

    Source: Eckart and Young 1936; arXiv 2402.11505 (FlexLoRA), equation 3, where B takes S.
    """
    q, core, p = matrix.core()
    u, values, vt = torch.linalg.svd(core, full_matrices=False)
    right = vt[:rank] @ p
    largest = right.abs().argmax(1, keepdim=True)
    signs = torch.where(right.gather(1, largest) < 0, -1.0, 1.0)
    left = (q @ u[:, :rank]) * (values[:rank] * signs.squeeze(1))
    lost = float(torch.linalg.vector_norm(values[rank:]))
    return Truncated(Factors(left, right * signs), values[:rank], lost)
