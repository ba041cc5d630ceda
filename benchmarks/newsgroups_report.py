"""What sending less, and privacy, cost in accuracy: 20 Newsgroups, 100 clients, 10 in a round.

MiniLM with LoRA learns the 20 groups from clients whose mixes of groups are drawn by Dirichlet 0.1.
Six settings with the same hyperparameters run through the real command, over three seeds that also
decide the split; privacy alone has a clip. The accuracy is that of the last state, and MB are 10^6
bytes of encoded payloads, headers included. Runs that are complete in runs/newsgroups_report are
read and not repeated, so that the report can be interrupted: empty it after changing the code.

    python benchmarks/newsgroups_report.py [--quick]

``--quick`` (one seed, three rounds) learns nothing: its bytes are right and its accuracies chance.
"""

import hashlib
import json
import os
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path

from checkouts import THIS, command, words
from setting import Settings, is_quick, print_machine

from scaling_fl.methods.wire.payloads import HEADER_BYTES, index_bits, payload_size
from scaling_fl.methods.wire.sparsity import count_kept
from scaling_fl.runtime.record.journal import JournalTail, fold

SEEDS = (1, 2, 3)
NUM_ROUNDS, QUICK_ROUNDS = 20, 3
COMMON: Settings = {
    "site_ids": [0, 1],
    "num_threads": 1,
    "device": "cpu",
    "task_name": "20newsgroups",
    "model": "minilm",
    "max_seq_len": 32,
    "data": {"max_test_examples": 2000},
    "val_batch_size": 100,
    # Classes that a client lacks must not be unlearned at full speed, which rules out adaptive
    # optimisers. The new head on small features then needs a large rate, and LoRA a small scale.
    "optimiser": "sgd",
    "learning_rate": 15.0,
    "max_grad_norm": 1.0,
    "adapter": {"kind": "lora", "alpha": 0.1},
    "schedule": {"kind": "linear", "final_learning_rate": 1.5},
    "partition": {"kind": "dirichlet_by_client", "alpha": 0.1},
    "num_clients": 100,
    "clients_per_round": 10,
    "weighting": "uniform",
    "num_local_steps": 4,
    "batch_size": 4,
    "eval_every": 1000,  # the last round is evaluated in any case
    "keep_last": 1,
}
PRIVACY = {"clip": 1.0, "target_epsilon": 8.0, "delta": 0.001, "accountant": "pld"}
# Whoever knows the secret can subtract the noise; this data is public, and runs should repeat.
NOISE_SECRET = "the texts of this benchmark are public"


def both_ways(**direction: object) -> Settings:
    return {"download": direction, "upload": direction}


SETTINGS: dict[str, Settings] = {
    "dense": {},
    "FLASC 1/4": both_ways(density=1 / 4),
    "FLASC 1/16": both_ways(density=1 / 16),
    "NF4": both_ways(codec="nf4"),
    "NF4, FLASC 1/4": both_ways(codec="nf4", density=1 / 4),
    "DP, epsilon 8": {"privacy": PRIVACY},
}
CLOSE = {"FLASC 1/4": 1.0, "NF4": 1.0}  # points from dense, at most
BITS_TARGET = 4.6


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run came to."""

    accuracy: float  # in points
    download_bytes: int
    upload_bytes: int
    payload_bytes: int  # of one upload; a run with noise does not tell
    epsilon: float | None


def train(setting: str, seed: int, num_rounds: int) -> Result:
    """Run the command, or what is left of it, and read what it left."""
    settings = COMMON | SETTINGS[setting]
    settings |= {"seed": seed, "data_seed": seed, "num_rounds": num_rounds}
    # With other settings it is another job, or an old result would stand for a new one.
    job = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    settings["job_name"] = job
    folder = THIS / "runs" / "newsgroups_report"
    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / "checkpoints" / job / "journal.jsonl"
    if fold(JournalTail(journal).read_new()).status != "COMPLETED":
        environ = os.environ | {"SCALING_FL_NOISE_SECRET": NOISE_SECRET}
        line = [*command(THIS), "with", *words(settings)]
        subprocess.run(line, cwd=folder, env=environ, check=True, stdout=subprocess.DEVNULL)
    return read_result(journal)


def read_result(journal: Path) -> Result:
    record = fold(JournalTail(journal).read_new())
    assert not record.failures, f"clients were left out: {record.failures}"
    values = {name: series["values"] for name, series in record.metrics.items()}
    return Result(
        accuracy=100 * values["validation.accuracy"][-1],
        download_bytes=int(sum(values["bytes.download"])),
        upload_bytes=int(sum(values["bytes.upload"])),
        payload_bytes=record.clients[-1]["upload_bytes"] if record.clients else 0,
        epsilon=values["privacy.epsilon"][-1] if "privacy.epsilon" in values else None,
    )


Results = dict[str, list[Result]]


def differences(results: Results, setting: str) -> list[float]:
    """Return the points above dense, seed by seed: both have the same split and first state."""
    pairs = zip(results[setting], results["dense"], strict=True)
    return [run.accuracy - dense.accuracy for run, dense in pairs]


def print_table(results: Results) -> None:
    print("| setting | accuracy | to dense | by seed | MB down | MB up | MB in all | of dense |")
    print("|---|---|---|---|---|---|---|---|")
    dense_bytes = results["dense"][0].download_bytes + results["dense"][0].upload_bytes
    for setting, runs in results.items():
        accuracies = [run.accuracy for run in runs]
        spread = f" ± {statistics.stdev(accuracies):.1f}" if len(runs) > 1 else ""
        found = differences(results, setting)
        down, up = runs[0].download_bytes, runs[0].upload_bytes  # the same for every seed
        cells = [
            f"{statistics.fmean(accuracies):.1f}{spread}",
            f"{statistics.fmean(found):+.2f}",
            ", ".join(f"{difference:+.2f}" for difference in found),
            *(f"{num_bytes / 1e6:.2f}" for num_bytes in (down, up, down + up)),
            f"{(down + up) / dense_bytes:.1%}",
        ]
        print(f"| {setting} | {' | '.join(cells)} |")


def print_wire(results: Results) -> None:
    """Say what the payloads are made of."""
    size = (results["dense"][0].payload_bytes - HEADER_BYTES) // 4
    print(f"{size} parameters are trained and sent")
    for density in (4, 16):
        kept = count_kept(size, 1 / density)
        index, values = index_bits(size, kept) // 8, 4 * kept
        assert payload_size(size, kept, "none") == HEADER_BYTES + index + values
        assert payload_size(size, kept, "none") == results[f"FLASC 1/{density}"][0].payload_bytes
        print(
            f"FLASC 1/{density}: {index} bytes of indices to {values} of values, "
            f"{index / values:.1%} more, {8 * index / kept:.2f} bits for each kept parameter"
        )
    epsilons = sorted({f"{run.epsilon:.3f}" for run in results["DP, epsilon 8"]})
    print(f"epsilon reported: {', '.join(epsilons)} at delta {PRIVACY['delta']}")
    bits = 8 * results["NF4"][0].payload_bytes / size
    print(f"NF4: {bits:.3f} bits for each parameter (target {BITS_TARGET} at most)")


def main() -> None:
    quick = is_quick(__doc__)
    seeds, num_rounds = (SEEDS[:1], QUICK_ROUNDS) if quick else (SEEDS, NUM_ROUNDS)
    print_machine()
    results: Results = {setting: [] for setting in SETTINGS}
    for seed in seeds:
        for setting, runs in results.items():
            runs.append(train(setting, seed, num_rounds))
            print(f"seed {seed}, {setting}: {runs[-1].accuracy:.2f} points", flush=True)
    print_table(results)
    print_wire(results)
    for setting, target in () if quick else CLOSE.items():
        found = statistics.fmean(differences(results, setting))
        print(f"difference: {setting} to dense {found:+.2f} points (target within {target:g})")
    print_machine()


if __name__ == "__main__":
    main()
