"""Merges that a few wrong clients cannot lead anywhere; all clients count alike."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from scaling_fl.methods.merging.merge import Merge, Round, Updates

_COLUMNS = 1 << 16


def median() -> Merge:
    """Return the median of every coordinate; of an even number, the mean of the middle two.

    A coordinate that a client did not send counts as 0. Source: arXiv 1803.01498, definition 1.
    """

    def merge(updates: Updates, round: Round) -> Tensor:
        return torch.cat([_mean_of_middle(block, 0.5) for block in _sorted(updates, round)])

    return merge


def trimmed_mean(trim: float) -> Merge:
    """Average every coordinate without its smallest and its largest values.

    A share of ``trim`` of the clients is left out on either side, rounded down. A coordinate that
    a client did not send counts as 0. Source: arXiv 1803.01498, definition 2.
    """

    def merge(updates: Updates, round: Round) -> Tensor:
        return torch.cat([_mean_of_middle(block, trim) for block in _sorted(updates, round)])

    return merge


def krum(byzantine: int) -> Merge:
    """Return the update that is nearest to its neighbours. Source: arXiv 1703.02757, section 4.

    A client's score is the sum of its squared distances to the n - byzantine - 2 clients nearest
    to it, or to the nearest one if there are too few; of equal scores, the lower client counts.
    """
    return multikrum(byzantine, 1)


def multikrum(byzantine: int, selected: int) -> Merge:
    """Average the ``selected`` updates of the lowest scores of ``krum``.

    Source: arXiv 1703.02757, section 4 (Multi-Krum).
    """

    def merge(updates: Updates, round: Round) -> Tensor:
        scores = _scores(updates, round, byzantine)
        chosen = set(sorted(scores, key=lambda client: (scores[client], client))[:selected])
        share = 1.0 / max(1, len(chosen))
        return round.mean_over_senders(
            (u.vector, share, None) for u in updates.again() if u.client in chosen
        )

    return merge


def _sorted(updates: Updates, round: Round) -> Iterator[Tensor]:
    for block in round.columns(updates, _COLUMNS):
        yield block.sort(0).values


def _mean_of_middle(ordered: Tensor, trim: float) -> Tensor:
    """Average rows of (clients, columns) but for a share of ``trim`` on either side, at most all
    but the middle one or two. Row after row, so that no machine adds in another order.
    """
    num_clients = len(ordered)
    left_out = min(int(num_clients * trim * (1.0 + 1e-12)), (num_clients - 1) // 2)
    middle = ordered[left_out : num_clients - left_out]
    total = middle[0].double()
    for row in middle[1:]:
        total += row
    return total.div_(len(middle)).float()


def _scores(updates: Updates, round: Round, byzantine: int) -> dict[int, float]:
    """Score the clients; a client's distances are computed by its own worker alone."""
    mine = [u.client for u in updates.again()]
    clients = list(round.shares)
    rows = {client: clients.index(client) for client in mine}
    squares = {client: torch.zeros(len(clients), dtype=torch.float64) for client in mine}
    for block in round.columns(updates, _COLUMNS):
        for client, row in rows.items():
            squares[client] += (block.double() - block[row]).square_().sum(1).cpu()
    distances = round.gather((client, square.float()) for client, square in squares.items())
    num_nearest = max(1, len(clients) - byzantine - 2)
    return {
        client: math.fsum(sorted(_others(distances[row].tolist(), row))[:num_nearest])
        for row, client in enumerate(clients)
    }


def _others(row: list[float], place: int) -> list[float]:
    return row[:place] + row[place + 1 :]
