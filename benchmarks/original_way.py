"""A round of this project against a round done the original system's way, on short and long texts.

Both sides run 4 clients on 2 processes of one thread, MiniLM, batches of 16 texts cut at 128
tokens, the same examples and the same number of steps; they take turns, a round each.
"""

import resource
import statistics
import time

from federated import Round, workers
from original import Original, Trained
from setting import LONG, Settings, is_quick, median_ratio, one_epoch, print_machine, short_texts

from scaling_fl.core.records import RoundReport

TARGETS = {"short": 3.0, "long": 1.0}
WAYS = ("original", "ours", "grouped")
NUM_CLIENTS, NUM_WORKERS = 4, 2


def federation(kind: str, steps: int, optimiser: str) -> Settings:
    """Return a federation of ``short`` or ``long`` texts, with so many steps for each client."""
    texts = short_texts() if kind == "short" else {}
    settings = LONG | texts | {"max_seq_len": 128, "optimiser": optimiser}
    return one_epoch(NUM_CLIENTS, steps * NUM_CLIENTS, settings)


class Times:
    """Seconds of each way's rounds by the wall, and CPU seconds of all processes together."""

    def __init__(self) -> None:
        self.wall: dict[str, list[float]] = {way: [] for way in WAYS}
        self.cpu: dict[str, list[float]] = {way: [] for way in WAYS}

    def measure_original(self, original: Original) -> list[Trained]:
        tasks = original.tasks()
        began, began_cpu = time.perf_counter(), _cpu_with_children()
        reports = original.round(tasks)
        self.cpu["original"].append(_cpu_with_children() - began_cpu)
        self.wall["original"].append(time.perf_counter() - began)
        return reports

    def measure_ours(self, way: str, run_round: Round) -> RoundReport:
        began = time.perf_counter()
        report, cpu_seconds = run_round(way)
        self.wall[way].append(time.perf_counter() - began)
        self.cpu[way].append(cpu_seconds)
        return report

    def show(self, title: str) -> None:
        for way in WAYS:
            columns = (
                f"{statistics.median(seconds[way]):>8.2f}"
                f" {median_ratio(seconds['original'], seconds[way]):>6.2f}"
                for seconds in (self.wall, self.cpu)
            )
            print(f"{title} {way:>8} {' '.join(columns)}", flush=True)


def _cpu_with_children() -> float:
    """Count this process and the children that have ended, as a pool's have after its round."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def compare(kind: str, steps: int, optimiser: str, num_rounds: int) -> float:
    """Take turns, a round each, and print a row for each way; returns the ratio of the rounds."""
    settings = federation(kind, steps, optimiser)
    original = Original(settings, NUM_WORKERS)
    times = Times()
    ours = {"ours": settings, "grouped": settings | {"length_grouped": True}}
    with workers(ours, NUM_WORKERS) as run_round:
        for _ in range(num_rounds):
            theirs = times.measure_original(original)
            for way in ours:
                check_same_work(theirs, times.measure_ours(way, run_round), steps)
    times.show(f"{kind:>5} {optimiser:>5} {steps:>5}")
    return median_ratio(times.wall["original"], times.wall["ours"])


def check_same_work(theirs: list[Trained], ours: RoundReport, steps: int) -> None:
    """Require equal steps and examples; the losses differ, since one side masks its padding."""
    assert [report.steps for report in theirs] == [steps] * NUM_CLIENTS
    batch_size = LONG["batch_size"]
    assert [report.num_examples for report in ours.clients] == [steps * batch_size] * NUM_CLIENTS
    loss = statistics.fmean(report.loss for report in theirs)
    assert abs(loss - ours.metrics["train.loss"]) < 0.3, (loss, ours.metrics["train.loss"])


def main() -> None:
    quick = is_quick(__doc__)
    # The pool's start is paid once a round, so that the ratio falls as rounds get longer.
    cases = [("short", 8, "sgd", 3), ("long", 8, "sgd", 3), ("short", 8, "adamw", 3)]
    cases = [(*case[:3], 1) for case in cases[:2]] if quick else [*cases, ("short", 32, "sgd", 1)]
    print_machine()
    print("texts  opt. steps      way  round s  ratio    CPU s  ratio", flush=True)
    ratios = {case[:3]: compare(*case) for case in cases}
    print_machine()
    for (kind, steps, optimiser), ratio in ratios.items():
        title = f"{kind} texts, {steps} steps of {optimiser} for each client"
        print(f"{title}, ratio: {ratio:.2f} (target {TARGETS[kind]:g})")


if __name__ == "__main__":
    main()
