"""What merges cost beside the mean, and FlexLoRA beside a dense SVD.

Each merge takes turns with the mean at a whole step of the server: 10 updates of 22 million
coordinates, one worker. Two workers show whether a merge's memory grows with the clients of the
other one. FlexLoRA merges the adapters of a 7B model's size, and the dense SVD of the mean product
says what its factors should have been.
"""

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from setting import is_quick, median_ratio, print_machine
from sums_alone import connect
from torch import Tensor

from scaling_fl.core.exchange import Exchange, SingleExchange
from scaling_fl.core.records import ClientReport
from scaling_fl.core.state import GlobalState
from scaling_fl.core.vector import Layout
from scaling_fl.federation.arrivals import Reply
from scaling_fl.federation.link import Link
from scaling_fl.federation.server import Server
from scaling_fl.methods.merging.low_rank import Factors, flexlora, side_by_side, truncate
from scaling_fl.methods.merging.masks import consensus_mask, dare, dare_ties, magnitude_mask
from scaling_fl.methods.merging.means import mean
from scaling_fl.methods.merging.merge import Merge
from scaling_fl.methods.merging.signs import ties
from scaling_fl.methods.pairs import Pair, pairs_of
from scaling_fl.methods.server_optimisers import sgd
from scaling_fl.methods.wire.direction import Payload
from scaling_fl.methods.wire.holding import RankHolding

SIZE, NUM_CLIENTS = 22_000_000, 10
MERGES: dict[str, Merge] = {
    "ties": ties(0.2),
    "ties by tensor": ties(0.2, "tensor"),
    "dare": dare(0.5),
    "dare_ties": dare_ties(0.5, 0.2),
    "magnitude_mask": magnitude_mask(0.2),
    "consensus_mask": consensus_mask(0.4, 2),
}
RANKS = (4, 8, 16, 32)
OUTPUTS = {"q": 4096, "v": 1024}


class Cost(NamedTuple):
    """What one step took."""

    seconds: float
    cpu_seconds: float


def reply(client: int, vector: Tensor, tier: int = 0) -> Reply:
    report = ClientReport(
        round=1,
        client=client,
        tier=tier,
        num_examples=10,
        metrics={"loss": 1.0},
        download_bytes=1,
        upload_bytes=1,
        seconds=1.0,
    )
    return Reply(report=report, payload=Payload(len(vector), 4 * len(vector), vector=vector))


def some_update(client: int, size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(client)) * 1e-3


def some_tensors(size: int) -> Layout:
    """Cut a vector into 100 tensors."""
    ends = [size * n // 100 for n in range(101)]
    shapes = tuple((end - start,) for start, end in pairwise(ends))
    return Layout(tuple(map(str, range(100))), shapes)


class Merging:
    """A server that merges the same clients' updates again and again."""

    def __init__(self, merge: Merge, size: int, exchange: Exchange, num_clients: int) -> None:
        self.state, self.num_clients = GlobalState(torch.zeros(size)), num_clients
        self._server = Server(
            exchange,
            merge,
            sgd(1.0),
            torch.empty(size),
            links=[Link(size)],
            min_clients=1,
            layout=some_tensors(size),
        )

    def step(self, updates: Iterator[tuple[int, Tensor]]) -> Cost:
        shares = dict.fromkeys(range(self.num_clients), 1 / self.num_clients)
        replies = (reply(client, vector) for client, vector in updates)
        began, began_cpu = time.perf_counter(), time.process_time()
        self._server.step(self.state, self._server.downloads(self.state), shares, replies)
        return Cost(time.perf_counter() - began, time.process_time() - began_cpu)


def compare_with_mean(size: int, num_pairs: int) -> None:
    """Print what each merge takes; a first, unmeasured step touches the memory."""
    vectors = [some_update(client, size) for client in range(NUM_CLIENTS)]
    sides = {
        name: Merging(merge, size, SingleExchange(1), NUM_CLIENTS)
        for name, merge in {"mean": mean(), **MERGES}.items()
    }
    print(f"{torch.get_num_threads()} thread(s): {'CPU s':>12} {'mean':>6}")
    for name in MERGES:
        found: dict[str, list[Cost]] = {"mean": [], name: []}
        for number in range(num_pairs + 1):
            for side in sorted(found, reverse=bool(number % 2)):
                cost = sides[side].step(iter(enumerate(vectors)))
                if number:
                    found[side].append(cost)
        clock, cpu = (
            median_ratio([cost[n] for cost in found[name]], [cost[n] for cost in found["mean"]])
            for n in (0, 1)
        )
        least = {side: min(cost.cpu_seconds for cost in costs) for side, costs in found.items()}
        print(f"{name:>24} {least[name]:6.2f} {least['mean']:6.2f}")
        print(f"{name} by CPU time ratio: {cpu:.2f} (target 2)")
        print(f"{name} by the clock ratio: {clock:.2f} (target 2)", flush=True)


def peak() -> int:
    """Return the bytes that this process had in memory at most (Linux).

    The kernel's other count, ``ru_maxrss``, begins with that of the process which started this one.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def merge_beside(
    rank: int, store_path: str, pipe: Connection, name: str, size: int, num_others: int
) -> None:
    """Run one of two workers: the first has two clients, the second one the others."""
    torch.set_num_threads(1)
    exchange = connect(rank, store_path)
    mine = range(2, 2 + num_others) if rank else range(2)
    Merging(MERGES[name], size, exchange, 2 + num_others).step(
        (client, some_update(client, size)) for client in mine
    )
    exchange.close()
    if rank == 0:
        pipe.send(peak())


def peak_beside(name: str, size: int, num_others: int) -> int:
    """Return the peak memory of a worker with two clients beside another worker's."""
    with tempfile.TemporaryDirectory() as folder:
        return in_processes(
            merge_beside, [(rank, f"{folder}/store") for rank in (0, 1)], name, size, num_others
        )


def in_processes(work: Callable[..., None], starts: Sequence[tuple[Any, ...]], *args: Any) -> Any:
    """Run ``work(*start, pipe, *args)`` in fresh processes; return what one of them sends."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    processes = [context.Process(target=work, args=(*start, theirs, *args)) for start in starts]
    for process in processes:
        process.start()
    while not ours.poll(1.0):
        assert all(process.exitcode in (None, 0) for process in processes), "a process failed"
    found = ours.recv()
    for process in processes:
        process.join()
    return found


def adapters(num_layers: int, inner: int) -> Layout:
    """Return the layout of LoRA on the queries and values of so many layers."""
    rows = [
        (f"{layer}.{name}.lora_{side}.default", shape)
        for layer in range(num_layers)
        for name, out in OUTPUTS.items()
        for side, shape in (("A", (RANKS[-1], inner)), ("B", (out, RANKS[-1])))
    ]
    return Layout(tuple(name for name, _ in rows), tuple(shape for _, shape in rows))


def merge_adapters(pipe: Connection, num_layers: int, inner: int, num_threads: int) -> None:
    """Merge clients of mixed ranks by FlexLoRA; send what that took, and the error of a value."""
    torch.set_num_threads(num_threads)
    layout = adapters(num_layers, inner)
    holdings = [RankHolding(layout, rank) for rank in RANKS[:-1]]
    links = [*(Link(layout.size, holding=one) for one in holdings), Link(layout.size)]
    start = GlobalState(some_update(NUM_CLIENTS, layout.size))
    pairs, held = pairs_of(layout), [links[client % len(links)] for client in range(NUM_CLIENTS)]
    server = Server(
        SingleExchange(1),
        flexlora(),
        sgd(1.0),
        torch.empty(layout.size),
        links=links,
        min_clients=1,
        layout=layout,
    )
    replies = (
        reply(client, some_update(client, link.num_held), client % len(links))
        for client, link in enumerate(held)
    )
    shares = dict.fromkeys(range(NUM_CLIENTS), 1 / NUM_CLIENTS)
    began, began_cpu = time.perf_counter(), time.process_time()
    after, _ = server.step(start, server.downloads(start), shares, replies)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    most = peak()
    pair = pairs[1]  # of values, 1024 x 4096
    product = torch.zeros(pair.b_of(start.vector).shape[0], inner, dtype=torch.float64)
    for client, link in enumerate(held):
        trained = start.vector.clone()
        coordinates = link.holding.coordinates(b"") if link.holding else slice(None)
        trained[coordinates] += some_update(client, link.num_held)
        kept = torch.zeros_like(trained)
        kept[coordinates] = trained[coordinates]
        product += dense(pair, kept) / NUM_CLIENTS
    u, values, vt = torch.linalg.svd(product, full_matrices=False)
    best = u[:, : pair.rank] * values[: pair.rank] @ vt[: pair.rank]
    pipe.send((seconds, cpu_seconds, most, relative_error(dense(pair, after.vector), best)))


def dense(pair: Pair, vector: Tensor) -> Tensor:
    return pair.b_of(vector).double() @ pair.a_of(vector).double()


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def compare_with_dense(size: int, num_runs: int) -> None:
    """Print how much faster the factors' SVD is than that of their product."""
    rng = torch.Generator().manual_seed(1)
    parts = [
        Factors(
            torch.randn(size, rank, generator=rng, dtype=torch.float64) / NUM_CLIENTS,
            torch.randn(rank, size, generator=rng, dtype=torch.float64),
        )
        for rank in (RANKS[client % len(RANKS)] for client in range(NUM_CLIENTS))
    ]
    product, rank, ratios = side_by_side(parts), RANKS[-1], []
    whole = product.left @ product.right
    for _ in range(num_runs):
        times = [time.process_time()]
        found = truncate(side_by_side(parts), rank).factors
        times.append(time.process_time())
        u, values, vt = torch.linalg.svd(whole)
        times.append(time.process_time())
        ratios.append((times[2] - times[1]) / (times[1] - times[0]))
        best = u[:, :rank] * values[:rank] @ vt[:rank]
    error = relative_error(found.left @ found.right, best)
    print(f"{size} x {size}: factors {times[1] - times[0]:.3f} s of CPU time, error {error:.1e}")
    print(f"dense SVD by CPU time ratio: {statistics.median(ratios):.0f} (target 100)")


def main() -> None:
    quick = is_quick(__doc__)
    print_machine()
    for num_threads in (1,) if quick else (1, 2):
        torch.set_num_threads(num_threads)
        compare_with_mean(SIZE, 3 if quick else 7)
    torch.set_num_threads(1)
    for name in ("ties",) if quick else MERGES:
        few, many = (peak_beside(name, SIZE, others) for others in (2, 8))
        print(f"{name}: {few / 2**20:.0f} MiB beside 2 clients of another worker")
        print(f"{name}, memory beside 8 to that beside 2, ratio: {many / few:.3f} (target 1)")
    for num_threads in (1,) if quick else (1, 2):
        seconds, cpu, most, error = in_processes(merge_adapters, [()], 32, 4096, num_threads)
        print(f"FlexLoRA, 32 layers, {num_threads} thread(s): {cpu:.1f} s of CPU time")
        print(f"by the clock: {seconds:.1f} s (target 20)")
        print(f"peak memory: {most / 1e9:.2f} GB (target 2), error {error:.1e} (target 1e-5)")
    compare_with_dense(2048, 1 if quick else 3)
    print_machine()


if __name__ == "__main__":
    main()
