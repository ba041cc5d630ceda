"""Seconds that a sweep takes for each tiny run beside the rounds of that run, from start to start.

One slot trains runs of one round and one step after the other. The first run, for which torch is
imported, is left out. Where the seconds go is read from the journals. The same runs by a command
each are what a loop of the shell would take.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from checkouts import command, words
from setting import is_quick, print_machine, short_texts

from scaling_fl.config.typed import flat_settings
from scaling_fl.runtime.record.journal import JOURNAL, JournalTail

ROOT = Path(__file__).resolve().parents[1]
TARGET_SECONDS = 1.5
PARTS = ("until ready", "rounds", "until the end", "until the next start")


def settings() -> dict[str, Any]:
    return {
        **short_texts(),
        "device": "cpu",
        "num_threads": 1,
        "model": "tiny",
        "num_clients": 1,
        "num_rounds": 1,
        "num_local_steps": 1,
        "max_seq_len": 16,
        "optimiser": "adamw",
        "data": {"max_train_examples": 64, "max_test_examples": 64},
    }


def experiment(num_runs: int) -> dict[str, Any]:
    return {"name": "tiny", "overrides": dict(flat_settings(settings())), "seeds": num_runs}


def run_commands(folder: Path, num_runs: int) -> list[float]:
    """Run some of the runs by a command each; returns the seconds of each."""
    taken = []
    for seed in range(num_runs):
        began = time.perf_counter()
        typed = [*command(ROOT), "with", *words(settings()), f"seed={seed}"]
        subprocess.run(typed, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - began)
    return taken


def run_sweep(folder: Path, num_runs: int) -> list[list[dict[str, Any]]]:
    """Run a sweep in a folder; returns the events of its runs, in the order of their starts."""
    file = folder / "experiments.yaml"
    file.write_text(yaml.safe_dump(experiment(num_runs)))
    script = [sys.executable, str(ROOT / "scripts" / "run_experiments.py")]
    subprocess.run(
        [*script, "--config-list", str(file)], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )
    journals = folder.glob(f"checkpoints/*/{JOURNAL}")
    return sorted((JournalTail(path).read_new() for path in journals), key=start_of)


def moment(events: list[dict[str, Any]], name: str) -> float:
    """Return when an event of a name was journaled, in seconds since 1970."""
    found = next(event for event in events if event["event"] == name)
    return datetime.fromisoformat(found["time"]).timestamp()


def start_of(events: list[dict[str, Any]]) -> float:
    return moment(events, "start")


def parts_of(events: list[dict[str, Any]], following: list[dict[str, Any]]) -> list[float]:
    """Part the seconds from the start of a run to the next one's."""
    rounds = [event for event in events if event["event"] == "round"]
    seconds = sum(event["metrics"]["time.round_seconds"] for event in rounds)
    start, ready, end = (moment(events, name) for name in ("start", "partition", "end"))
    return [ready - start, seconds, end - ready - seconds, start_of(following) - end]


def main() -> None:
    few = is_quick(__doc__)
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        runs = run_sweep(Path(folder), 6 if few else 24)
        alone = run_commands(Path(folder), 2 if few else 6)
    pairs = list(pairwise(runs[1:]))
    parts = [parts_of(*pair) for pair in pairs]
    for number, name in enumerate(PARTS):
        print(f"{name:<22} {statistics.median(row[number] for row in parts):.2f} s")
    beside = [sum(row) - row[1] for row in parts]
    print(
        f"beside its rounds, start to start: {statistics.median(beside):.2f} s "
        f"({min(beside):.2f} to {max(beside):.2f} of {len(beside)} runs) "
        f"(target {TARGET_SECONDS})"
    )
    print(f"by a command of its own: {statistics.median(alone):.2f} s a run")
    print_machine()


if __name__ == "__main__":
    main()
