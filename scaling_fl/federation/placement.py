"""The worker that runs each client of a round. The placement changes the time, never a result."""

from collections.abc import Sequence


def deal(cohort: Sequence[int], work: Sequence[int], sites: Sequence[int]) -> dict[int, int]:
    """Deal clients to sites and return the worker (rank) of each client.

    If there are at most as many clients as sites, client i lives on site i. Otherwise the clients
    are dealt one by one, those with the most work first, each to the worker with the least work so
    far. Among equal ones, the lower number is first, so all workers compute the same placement.

    Args:
        cohort: the clients of the round.
        work: for every client of the federation, its local steps in a round.
        sites: for every site, the rank of its worker.
    """
    if len(work) <= len(sites):
        return {client: sites[client] for client in cohort}
    # The sites of a worker run one after the other, so the load of the worker counts.
    workers = sorted(set(sites))
    load = dict.fromkeys(workers, 0)
    worker_of: dict[int, int] = {}
    for client in sorted(cohort, key=lambda c: (-work[c], c)):
        worker = min(workers, key=lambda w: (load[w], w))
        load[worker] += work[client]
        worker_of[client] = worker
    return worker_of
