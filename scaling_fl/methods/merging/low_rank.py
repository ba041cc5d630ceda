"""The weighted sum of products B A, as factors: never as the dense matrix that it stands for.

A client's product is B_k A_k, with B (out x rank) and A (rank x in). The sum of the products over
clients has the factors [share_k * B_k, ...] and [A_k; ...], side by side, and is exact in them. The
adapter's scale, alpha / rank, is the same for all clients of a run and for the result.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pad

from scaling_fl.methods.merging.merge import Merge, Round, Updates
from scaling_fl.methods.pairs import Pair


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
        """Return the Frobenius norm, by the matrix itself only where the factors are no smaller."""
        (out, rank), (_, num_in) = self.left.shape, self.right.shape
        if rank * (out + num_in) >= out * num_in:
            return float(torch.linalg.matrix_norm(self.left @ self.right))
        squares = (self.left.T @ self.left).mul_(self.right @ self.right.T).sum()
        return float(squares.clamp(min=0.0).sqrt())


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
    """The singular values that are kept, largest first; at most as many as there are."""
    lost: float
    """The norm of what is left out: the root of the sum of the squares of the other ones."""


def truncate(matrix: Factors, rank: int) -> Truncated:
    """Return the matrix of rank ``rank`` that is nearest to ``matrix``, by its SVD.

    The largest entry of each row of V^T is positive, so that the signs depend on no library. The
    rows of V^T are orthonormal even where the singular value is 0, so that none of them is dead.
    There must be at least ``rank`` rows in ``matrix.right``. A rank above the sides of the matrix
    has components of 0, which it does not need.

    Source: Eckart and Young 1936; arXiv 2402.11505 (FlexLoRA), equation 3, where B takes S.
    """
    q, core, p = matrix.core()
    u, values, vt = torch.linalg.svd(core, full_matrices=False)
    right = vt[:rank] @ p
    largest = right.abs().argmax(1, keepdim=True)
    signs = torch.where(right.gather(1, largest) < 0, -1.0, 1.0)
    left = (q @ u[:, :rank]) * (values[:rank] * signs.squeeze(1))
    lost = float(torch.linalg.vector_norm(values[rank:]))
    spare = max(0, rank - len(values))
    factors = Factors(pad(left, (0, spare)), pad(right * signs, (0, 0, 0, spare)))
    return Truncated(factors, values[:rank], lost)


def flexlora(weigh_by: str = "client") -> Merge:
    """Average the clients' products B A, and return the nearest factors of the adapter's rank.

    A client of a smaller rank holds the first components, which are the largest. Everything
    outside the pairs is averaged. With ``weigh_by="rank"``, a component is averaged over the
    clients that hold it; with plain weights, those of few clients shrink from round to round.
    Reports ``merge.effective_rank``, the exponential of the entropy of the singular values that
    are kept, averaged over the pairs.
    Source: arXiv 2402.11505 (FlexLoRA), section 3; arXiv 2602.13486 (raFLoRA: by rank);
    doi 10.5281/zenodo.40449 (effective rank).
    """

    def merge(updates: Updates, round: Round) -> Tensor:
        update = round.total((u.vector, u.share) for u in updates.once())
        jobs = (_job(pair, round, weigh_by) for pair in round.pairs)
        ranks = 0.0
        for pair, result in zip(round.pairs, round.spread(jobs), strict=True):
            assert pair.a is not None
            a, b, effective_rank = result.split([_size(pair.a), _size(pair.b), 1])
            update[pair.a] = a - round.start[pair.a]
            update[pair.b] = b - round.start[pair.b]
            ranks += float(effective_rank)
        round.report("merge.effective_rank", ranks / max(1, len(round.pairs)))
        return update

    return merge


def _job(pair: Pair, round: Round, weigh_by: str) -> Callable[[], Tensor]:
    """Gather the factors of all clients, and return the work of one worker on them."""
    a, b = round.factors(pair)
    weights = torch.tensor(list(round.shares.values()), dtype=torch.float64, device=a.device)
    weights = weights[:, None] * a.any(2)  # a client does not hold what has a row of 0
    if weigh_by == "rank":
        weights = (weights / weights.sum(0)).nan_to_num(0.0)
    return partial(_nearest, pair, a, b, weights, round.start)


def _nearest(pair: Pair, a: Tensor, b: Tensor, weights: Tensor, start: Tensor) -> Tensor:
    """Return A and B of the nearest factors, and the effective rank.

    ``weights`` are those of each client's components: (clients, rank), 0 where it holds none.
    """
    parts = [
        Factors((b_k.double() * row)[:, row > 0], a_k.double()[row > 0])
        for a_k, b_k, row in zip(a, b, weights, strict=True)
    ]
    # The rows of A before the round, with no weight, so that there are enough rows.
    parts.append(
        Factors(torch.zeros_like(pair.b_of(start), dtype=torch.float64), pair.a_of(start).double())
    )
    best = truncate(side_by_side(parts), pair.rank)
    parts_of_result = (best.factors.right, best.factors.left, _effective_rank(best.kept))
    return torch.cat([part.flatten() for part in parts_of_result]).float()


def _effective_rank(values: Tensor) -> Tensor:
    """Return exp(entropy of values / sum(values)); 0 if all are 0."""
    shares = values / values.sum()
    rank: Tensor = torch.special.entr(shares).sum().exp().nan_to_num(0.0)
    return rank


def _size(place: slice) -> int:
    return int(place.stop - place.start)
