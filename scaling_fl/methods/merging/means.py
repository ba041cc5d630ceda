"""Means of updates: over all clients of a round, or coordinate by coordinate over the senders."""

from torch import Tensor

from scaling_fl.methods.merging.merge import Merge, Round, Updates


def mean() -> Merge:
    """Average the updates by the clients' shares. Source: arXiv 1602.05629, algorithm 1."""

    def merge(updates: Updates, round: Round) -> Tensor:
        update = round.total((u.vector, u.share) for u in updates.once())
        round.report("update.drift", round.drift_from(update))
        return update

    return merge


def mean_of_senders() -> Merge:
    """Average every coordinate over the clients that sent it; where none did, the mean is 0.

    Source: arXiv 2010.01264 (HeteroFL), equation 2, by coordinate.
    """

    def merge(updates: Updates, round: Round) -> Tensor:
        return round.mean_over_senders((u.vector, u.share, u.sent) for u in updates.once())

    return merge
