"""What each merge and each server optimiser gains over the mean: 20 Newsgroups, MiniLM, LoRA.

20 clients, 5 in a round, IID and by Dirichlet 0.1, over three seeds that also decide the split,
the order and the model's head. The rows of a seed differ in the method alone; a merge that is the
mean by default has the settings that its laws are tried with (``config.merges``). Two comparisons:
all at the same learning rate, and each at the rate of a grid that is best for the first seed (on
the same texts, for the mean, too). Of each, the difference to the mean, paired by seed, with its
95 % interval by Student's t: three seeds have two degrees of freedom, so that intervals are wide,
and only a difference whose interval leaves out 0 is one. At equal bytes, the method and the mean
are compared at their last evaluated rounds within the bytes of the cheaper of the two runs.

    python benchmarks/merges_on_newsgroups.py [--parallel N] [--table] [--quick]

Runs that are complete in runs/merges_on_newsgroups are read and not repeated, so that it may be
interrupted and called again; ``--table`` prints what is there. A dash is what has not been run.
The rows at the same rate come first, then the grid, then the best rates. ``--quick`` learns
nothing: the tiny model.
"""

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from checkouts import THIS
from setting import Settings, print_machine

from scaling_fl.config import NAMED, Config, ConfigurationError, read_config
from scaling_fl.config.merges import MERGES
from scaling_fl.config.typed import merged
from scaling_fl.jobs.here import drop_checkpoints, is_complete, record_of, run_all
from scaling_fl.reporting.comparison import BYTES, MeasuredRun, common_budget, mean_of, round_within

FOLDER = THIS / "runs" / "merges_on_newsgroups"
SEEDS = (1, 2, 3)

COMMON: Settings = {
    "device": "cpu",
    "num_threads": 1,
    "task_name": "20newsgroups",
    "model": "minilm",
    "max_seq_len": 24,
    # All but the head is low-rank, so that the merges of products have something to merge.
    "adapter": {"kind": "lora", "targets": [*NAMED["demo"]["adapter"]["targets"], "pooler.dense"]},
    "optimiser": "adamw",
    "learning_rate": 1e-2,
    "batch_size": 8,
    "length_grouped": True,
    "val_batch_size": 100,
    "num_clients": 20,
    "clients_per_round": 5,
    "num_local_steps": 4,
    "num_rounds": 6,
    "eval_every": 2,
    "save_every": 1000,
    "keep_last": 1,
    "data": {"max_train_examples": 4000, "max_test_examples": 400},
}
QUICK: Settings = {
    "model": "tiny",
    "adapter": {"kind": "lora"},
    "data": {"max_train_examples": 400, "max_test_examples": 40},
}
PARTITIONS: dict[str, Settings] = {
    "IID": {},
    "Dirichlet 0.1": {"partition": {"kind": "dirichlet_by_client", "alpha": 0.1}},
}


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of the table."""

    settings: Settings
    rate: str = "learning_rate"
    """The learning rate that the grid changes, by its path; its two factors are those of GRID."""
    beside: str = "mean"
    """The row that it is compared with."""


GRID = (1 / 3, 3.0)


def _server(**settings: object) -> Method:
    return Method(settings={"server": settings}, rate="server.learning_rate")


ADAPTIVE: Settings = {"learning_rate": 1e-2, "epsilon": 1e-3}
PAPER: Settings = ADAPTIVE | {"beta2": 0.99, "bias_correction": False}
BY_SGD: Settings = {"optimiser": "sgd", "learning_rate": 1.0, "max_grad_norm": 1.0}
METHODS: dict[str, Method] = {
    **{
        name: Method(settings={"merge": {"method": name, **row.tried_with}})
        for name, row in MERGES.items()
        if not row.personal  # such models answer test examples like their own: another measure
    },
    "FedProx, mu 0.01": Method(settings={"prox_mu": 0.01}),
    "FedAvgM, momentum 0.5": _server(momentum=0.5),
    "FedAdam": _server(optimiser="adam", **PAPER),
    "FedAdagrad": _server(optimiser="adagrad", **ADAPTIVE),
    "FedYogi": _server(optimiser="yogi", **PAPER),
    "mean, clients by SGD": Method(settings=BY_SGD),
    "SCAFFOLD, by SGD": Method(settings=BY_SGD | {"scaffold": True}, beside="mean, clients by SGD"),
}


def config_of(
    method: Method, partition: Settings, seed: int, factor: float, common: Settings = COMMON
) -> Config | None:
    """Return the settings of a run; None where the method is refused here."""
    settings = merged(common | {"seed": seed, "data_seed": seed}, partition)
    settings = merged(settings, method.settings)
    section, _, name = method.rate.rpartition(".")
    inside = settings.get(section, {}) if section else settings
    rate = {name: inside.get(name, 1.0) * factor}
    settings = merged(settings, {section: rate} if section else rate)
    try:
        return read_config(settings)
    except ConfigurationError:
        return None


@dataclass(frozen=True)
class Curve:
    """What an evaluated run came to, by round."""

    accuracy: dict[int, float]  # in points
    num_bytes: dict[int, float]

    @property
    def last(self) -> float:
        return self.accuracy[max(self.accuracy)]

    @property
    def trial(self) -> MeasuredRun:
        return MeasuredRun(run="", seeds=(), values=self.accuracy, spent={BYTES: self.num_bytes})

    def within(self, num_bytes: float) -> int:
        """Return the last evaluated round within the bytes."""
        found = round_within(self.trial, BYTES, num_bytes)
        assert found is not None
        return found


class Results:
    """The runs of the folder."""

    def __init__(self, folder: Path, seeds: tuple[int, ...], common: Settings) -> None:
        self._folder, self.seeds, self._common = folder, seeds, common

    def complete(self, num_processes: int) -> None:
        """Run what has not been run, the most telling first; only the records stay."""
        everywhere = [(name, part) for part in PARTITIONS for name in METHODS]
        self._run(num_processes, [(*each, 1.0, seed) for seed in self.seeds for each in everywhere])
        tried = [(*each, factor, self.seeds[0]) for factor in GRID for each in everywhere]
        self._run(num_processes, tried)
        best = [(*each, factor) for each in everywhere if (factor := self.best_factor(*each))]
        self._run(num_processes, [(*each, seed) for seed in self.seeds for each in best])

    def _run(self, num_processes: int, wanted: list[tuple[str, str, float, int]]) -> None:
        found = [self._config(*each) for each in wanted]
        configs = [config for config in found if config]
        run_all(
            configs,
            self._folder,
            num_processes=num_processes,
            done=lambda number, total: print(f"run {number} of {total}", flush=True),
        )
        for config in configs:
            drop_checkpoints(config, self._folder)

    def _config(self, name: str, partition: str, factor: float, seed: int) -> Config | None:
        return config_of(METHODS[name], PARTITIONS[partition], seed, factor, self._common)

    def curves(self, name: str, partition: str, factor: float) -> list[Curve] | None:
        """Return the curve of every seed; None where one has not been run."""
        found = [self._curve(name, partition, factor, seed) for seed in self.seeds]
        return None if None in found else [curve for curve in found if curve]

    def _curve(self, name: str, partition: str, factor: float, seed: int) -> Curve | None:
        config = self._config(name, partition, factor, seed)
        if config is None or not is_complete(config, self._folder):
            return None
        metrics = record_of(config, self._folder).metrics
        by_round = {
            metric: dict(zip(metrics[metric]["steps"], metrics[metric]["values"], strict=True))
            for metric in ("validation.accuracy", "bytes.total")
        }
        accuracy = {n: 100.0 * value for n, value in by_round["validation.accuracy"].items()}
        return Curve(accuracy, by_round["bytes.total"])

    def best_factor(self, name: str, partition: str) -> float | None:
        """Return the factor by which the first seed came out best; None until all have been run."""
        found = {f: self._curve(name, partition, f, self.seeds[0]) for f in (1.0, *GRID)}
        last = {factor: curve.last for factor, curve in found.items() if curve}
        return max(last, key=lambda factor: last[factor]) if len(last) == len(found) else None

    def best(self, name: str, partition: str) -> tuple[float, list[Curve]] | None:
        """Return that factor and the curves of all seeds at it; None until all have been run."""
        factor = self.best_factor(name, partition)
        curves = self.curves(name, partition, factor) if factor else None
        return (factor, curves) if factor and curves else None


def interval(differences: list[float]) -> str:
    """Write a mean with its half width of 95 %, and mark those whose interval leaves out 0."""
    found = mean_of(differences)
    if found.half is None:
        return f"{found.mean:+.1f}"
    text = f"{found.mean:+.1f} ± {found.half:.1f}"
    return f"**{text}**" if found.is_apart else text


def at_equal_bytes(ours: list[Curve], theirs: list[Curve]) -> tuple[list[float], str]:
    """Return the differences at equal bytes, and the rounds that were compared."""
    found, rounds = [], set()
    for our, their in zip(ours, theirs, strict=True):
        limit = common_budget([our.trial, their.trial], BYTES)
        assert limit is not None
        a, b = our.within(limit), their.within(limit)
        found.append(our.accuracy[a] - their.accuracy[b])
        rounds.add(f"{a} to {b}")
    return found, ", ".join(sorted(rounds))


def table(results: Results, partition: str) -> Iterator[str]:
    yield f"{partition}:"
    yield ""
    yield (
        "| method | accuracy | MB | to the mean, equal rounds | equal bytes | rounds | best rate "
        "| accuracy | to the mean's best |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, method in METHODS.items():
        if config_of(method, PARTITIONS[partition], results.seeds[0], 1.0) is None:
            continue
        ours = results.curves(name, partition, 1.0)
        theirs = results.curves(method.beside, partition, 1.0)
        cells = ["-"] * 8
        if ours:
            cells[0] = f"{statistics.fmean(curve.last for curve in ours):.1f}"
            cells[1] = f"{statistics.fmean(max(c.num_bytes.values()) for c in ours) / 1e6:.1f}"
        if ours and theirs:
            cells[2] = interval([a.last - b.last for a, b in zip(ours, theirs, strict=True)])
            differences, cells[4] = at_equal_bytes(ours, theirs)
            cells[3] = interval(differences)
        best, their_best = (results.best(n, partition) for n in (name, method.beside))
        if best:
            cells[5] = f"{best[0]:.2g} x"
            cells[6] = f"{statistics.fmean(curve.last for curve in best[1]):.1f}"
        if best and their_best:
            pairs = zip(best[1], their_best[1], strict=True)
            cells[7] = interval([a.last - b.last for a, b in pairs])
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parallel", type=int, default=2, metavar="N", help="runs at a time")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--quick", action="store_true", help="one seed of the tiny model")
    options = parser.parse_args()
    results = (
        Results(FOLDER, SEEDS[:1], COMMON | QUICK)
        if options.quick
        else Results(FOLDER, SEEDS, COMMON)
    )
    print_machine()
    if not options.table:
        results.complete(options.parallel)
    for partition in PARTITIONS:
        print("\n".join(table(results, partition)))
    print_machine()


if __name__ == "__main__":
    main()
