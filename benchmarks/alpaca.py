"""What is learned from Alpaca with LoRA and DoRA on bases of 16 and 4 bits.

SmolLM2-135M, 20 clients of which 2 in each of 10 rounds take 3 steps of 2 conversations, cut at 80
tokens, over three seeds that also decide the split. For each setting: how far the loss of held-out
answers falls, the difference to the base of 16 bits, paired by seed, with its 95 % interval by
Student's t, seconds of a round, the most memory of the process, and bytes both ways.

    python benchmarks/alpaca.py [--parallel N] [--table] [--quick]

Runs that are complete in runs/alpaca are read and not repeated.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
from pathlib import Path

import torch
from checkouts import THIS
from setting import Settings, print_machine

from scaling_fl.composition.data import load_data
from scaling_fl.composition.federation import make_evaluator
from scaling_fl.composition.model import load_trainer
from scaling_fl.config import Config, read_config
from scaling_fl.config.typed import merged
from scaling_fl.core.exchange import SingleExchange
from scaling_fl.core.json_text import json_text
from scaling_fl.jobs.here import drop_checkpoints, is_complete, name_of, record_of, run_here
from scaling_fl.reporting.comparison import mean_of

FOLDER = THIS / "runs" / "alpaca"
SEEDS = (1, 2, 3)
COMMON: Settings = {
    "device": "cpu",
    "num_threads": 1,
    "task_name": "generalnlp",
    "model": "smollm2",
    "optimiser": "adamw",
    "learning_rate": 1e-3,
    "batch_size": 2,
    "val_batch_size": 8,
    "max_seq_len": 80,
    "num_clients": 20,
    "clients_per_round": 0.1,
    "num_local_steps": 3,
    "num_rounds": 10,
    "eval_every": 10,
    "save_every": 1000,
    "keep_last": 1,
    "data": {"max_test_examples": 32},
}
LORA: Settings = {"rank": 8, "alpha": 16.0, "targets": "q_proj,v_proj"}
METHODS: dict[str, Settings] = {
    f"{kind}, {bits} bits": {"adapter": {"kind": kind, **LORA}, "load": {"bits": bits}}
    for kind in ("lora", "dora")
    for bits in (16, 4)
}


def config_of(method: Settings, seed: int, common: Settings) -> Config:
    return read_config(merged(common | {"seed": seed, "data_seed": seed}, method))


def run(settings: Settings, folder: str) -> None:
    """Run a job, and keep beside its record what it took."""
    config = read_config(settings)
    torch.set_num_threads(1)
    before = loss_before(config)
    run_here(config, Path(folder))
    facts = {
        "loss_before": before,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    drop_checkpoints(config, Path(folder))
    place = Path(folder) / name_of(config) / "facts.json"
    place.write_text(json_text(facts), encoding="utf-8")


def loss_before(config: Config) -> float:
    """Evaluate the model that round 1 begins with."""
    data = load_data(config, config.num_clients or 1, lambda text: None)
    cpu = torch.device("cpu")
    trainer = load_trainer(config, data, cpu, note=lambda text: None, stage=lambda text: None)
    evaluate = make_evaluator(config, trainer, data)
    return evaluate(trainer.vector.clone(), SingleExchange(1))["validation.loss"]


def fall_of(config: Config, folder: Path) -> tuple[float, float]:
    """Return the loss before round 1, and that after the last one."""
    after = record_of(config, folder).metrics["validation.loss"]["values"][-1]
    return _fact(config, folder, "loss_before"), float(after)


def table(folder: Path, seeds: tuple[int, ...], common: Settings) -> None:
    print("| setting | held-out loss | falls by | to 16 bits | s a round | peak GB | MB |")
    print("|---|---|---|---|---|---|---|")
    for name, method in METHODS.items():
        configs = [config_of(method, seed, common) for seed in seeds]
        if not all(is_complete(config, folder) for config in configs):
            continue
        losses = [fall_of(config, folder) for config in configs]
        beside = {**method, "load": {"bits": 16}}
        theirs = [fall_of(config_of(beside, seed, common), folder) for seed in seeds]
        falls = [before - after for before, after in losses]
        gains = [fall - (b - a) for fall, (b, a) in zip(falls, theirs, strict=True)]
        records = [record_of(config, folder) for config in configs]
        seconds = [s for r in records for s in r.metrics["time.round_seconds"]["values"][1:]]
        num_bytes = records[0].metrics["bytes.total"]["values"][-1]
        peak = statistics.median(_fact(c, folder, "peak_bytes") for c in configs)
        print(
            f"| {name} | {statistics.fmean(before for before, _ in losses):.3f} to "
            f"{statistics.fmean(after for _, after in losses):.3f} | {_interval(falls)} "
            f"| {_interval(gains)} | {statistics.median(seconds):.1f} | {peak / 1e9:.2f} "
            f"| {num_bytes / 1e6:.1f} |"
        )


def _fact(config: Config, folder: Path, name: str) -> float:

    text = (folder / name_of(config) / "facts.json").read_text(encoding="utf-8")
    return float(json.loads(text)[name])


def _interval(values: list[float]) -> str:
    found = mean_of(values)
    return f"{found.mean:+.3f}" + (f" ± {found.half:.3f}" if found.half is not None else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parallel", type=int, default=2, metavar="N", help="runs at a time")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--quick", action="store_true", help="one seed of the tiny model")
    options = parser.parse_args()
    common = COMMON | ({"model": "tiny", "max_seq_len": 300} if options.quick else {})
    folder = FOLDER.with_name("alpaca_quick") if options.quick else FOLDER
    seeds = SEEDS[:1] if options.quick else SEEDS
    print_machine()
    wanted = [config_of(method, seed, common) for seed in seeds for method in METHODS.values()]
    left = [c for c in wanted if not options.table and not is_complete(c, folder)]
    # A process of its own for each run, whose peak of memory is then that of the run.
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.parallel, maxtasksperchild=1) as pool:
        jobs = [(config.model_dump(mode="json"), str(folder)) for config in left]
        pool.starmap(run, jobs, chunksize=1)
    table(folder, seeds, common)
    print_machine()


if __name__ == "__main__":
    main()
