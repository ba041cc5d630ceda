"""How updates become one update: sums over clients, wherever the clients are.

A merge takes this worker's sums and ``total``, which adds an integer tensor across workers (the
identity for one worker).
"""

from collections.abc import Callable

from torch import Tensor

from scaling_fl.core.exact_sum import ExactSum

Total = Callable[[Tensor], Tensor]


def mean(
    sums: ExactSum,
    total: Total,
    *,
    included_share: float,
    out: Tensor,
    add_noise: Callable[[Tensor], None] = lambda units: None,
) -> Tensor:
    """Average the accumulated updates of all workers into ``out`` (fp32, the vector's size).

    ``included_share`` is the summed share of the clients that were not left out. ``add_noise``
    gets the units of the sum over all workers and does the same on every worker.
    Source: arXiv 1602.05629, algorithm 1.
    """
    total(sums.units)
    add_noise(sums.units)
    return sums.mean(out, included_share)


def mean_of_senders(sums: ExactSum, shares: ExactSum, total: Total, *, out: Tensor) -> Tensor:
    """Average every coordinate over the clients that sent it; where none did, the mean is 0.

    ``shares`` has, for every coordinate, the summed share of this worker's clients that sent it.
    Source: arXiv 2010.01264 (HeteroFL), equation 2, by coordinate.
    """
    total(sums.units)
    total(shares.units)
    return sums.mean_over(out, shares)
