"""Which worker runs which client of a round. Results never depend on it; only the time does."""

from collections.abc import Sequence


def deal(cohort: Sequence[int], work: Sequence[int], sites: Sequence[int]) -> dict[int, int]:
    """Deal clients to sites and return the worker (rank) of each client.

    With no more clients than sites in all, client i lives on site i. Otherwise the largest client
    goes first, to the worker with the least work dealt so far; ties go to the lower number, so
    that all workers deal alike.

    Args:
        cohort: the clients of the round.
        work: how much each of all clients has to do, in local steps.
        sites: for every site, the rank of its worker.
    """
    if len(work) <= len(sites):
        return {client: sites[client] for client in cohort}
    # Sites of one worker run one after the other, so what counts is the worker's load.
    workers = sorted(set(sites))
    load = dict.fromkeys(workers, 0)
    placed: dict[int, int] = {}
    for client in sorted(cohort, key=lambda c: (-work[c], c)):
        worker = min(workers, key=lambda w: (load[w], w))
        load[worker] += work[client]
        placed[client] = worker
    return placed
