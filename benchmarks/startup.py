"""Seconds from the command to the first training step, here and in another checkout.

    python benchmarks/startup.py --against OTHER [--quick]

A run of two workers is started on a terminal of its own and watched until its first step shows; all
caches are warm. Commands that train nothing are timed too. The two checkouts take turns.
"""

import json
import os
import pty
import select
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from checkouts import THIS, command, words
from setting import Settings, median_ratio, print_machine, read_options

TARGETS = {"tiny": "target 0.5", "minilm": "no target"}
"""The most that the time to the first step may be of the other checkout's."""
ANSWER_TARGET = 1.0
STAGES = ("parent", "imports", "data", "model", "first step")
MARKS = {"imports": b"on 2 CPU workers", "data": b"loading model", "first step": b"loss "}


def settings(model: str) -> Settings:
    return {
        "device": "cpu",
        "site_ids": [0, 1],
        "num_threads": 1,
        "model": model,
        "task_name": "20newsgroups_topics",
        "num_rounds": 1,
        "num_local_steps": 1000,
        "max_seq_len": 64,
        "batch_size": 16,
        "optimiser": "adamw",
        "data": {"max_train_examples": 2400, "max_test_examples": 800},
        "job_name": "startup",
    }


def start_run(root: Path, model: str) -> dict[str, float]:
    """Start a run, stop it at its first step; returns the seconds until each stage ended."""
    with tempfile.TemporaryDirectory() as folder:
        master, slave = pty.openpty()
        began = time.time()
        process = subprocess.Popen(
            [*command(root), "with", *words(settings(model))],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=slave,
            env=_environment(root) | {"TERM": "xterm", "COLUMNS": "200"},
        )
        os.close(slave)
        ends = _watch(master, Path(folder) / "runs" / "1" / "cout.txt", began)
        process.terminate()
        _drain(master)
        process.wait()
        journal = (Path(folder) / "checkpoints" / "startup" / "journal.jsonl").read_text()
    for line in journal.splitlines():
        event = json.loads(line)
        stage = {"start": "parent", "partition": "model"}.get(event["event"])
        if stage:
            ends[stage] = datetime.fromisoformat(event["time"]).timestamp() - began
    return ends


def _environment(root: Path) -> dict[str, str]:
    """Leave out what would track this run elsewhere, and have the checkout's own package run."""
    elsewhere = ("SACRED_", "MLFLOW_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(elsewhere)}
    return kept | {"PYTHONPATH": str(root)}


def _watch(terminal: int, log: Path, began: float) -> dict[str, float]:
    """Read the terminal, where the first step shows, and the log, which has every line."""
    seen, ends = b"", dict[str, float]()
    while "first step" not in ends:
        if select.select([terminal], [], [], 0.01)[0]:
            try:
                seen += os.read(terminal, 1 << 16)
            except OSError:
                raise SystemExit(f"the run ended before a step:\n{seen.decode()}") from None
        text = seen + (log.read_bytes() if log.exists() else b"")
        for stage, mark in MARKS.items():
            if stage not in ends and mark in text:
                ends[stage] = time.time() - began
    return ends


def _drain(terminal: int) -> None:
    """Read what is left, so that the run is not held up by a full terminal."""
    try:
        while os.read(terminal, 1 << 16):
            pass
    except OSError:
        os.close(terminal)


def seconds_of(root: Path, *arguments: str, code: int = 0) -> float:
    """Time a command that trains nothing."""
    began = time.perf_counter()
    done = subprocess.run(
        [*command(root), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=_environment(root),
    )
    assert done.returncode == code, done.stderr
    return time.perf_counter() - began


def compare_runs(model: str, other: Path, repetitions: int) -> float:
    """Start runs here and there in turns; prints the seconds of each stage, returns the ratio."""
    runs: dict[Path, list[dict[str, float]]] = {THIS: [], other: []}
    for root in runs:
        start_run(root, model)  # fills the caches
    for _ in range(repetitions):
        for root, mine in runs.items():
            mine.append(start_run(root, model))
    for root, mine in runs.items():
        ends = [statistics.median(run[stage] for run in mine) for stage in STAGES]
        stages = " ".join(f"{seconds:>10.2f}" for seconds in ends)
        print(f"{model:>7} {'here' if root == THIS else 'there':>5} {stages}", flush=True)
    return median_ratio(*([run["first step"] for run in mine] for mine in runs.values()))


def compare_answers(other: Path, repetitions: int) -> dict[str, float]:
    """Time the commands that train nothing here and there in turns; returns the ratios."""
    answers: dict[str, Callable[[Path], float]] = {
        "--help": lambda root: seconds_of(root, "--help"),
        "print_config": lambda root: seconds_of(root, "print_config"),
        "a start that is refused (unknown key)": lambda root: seconds_of(
            root, "with", "demo", "num_round=1", code=2
        ),
        "a start that is refused (wrong value)": lambda root: seconds_of(
            root, "with", "demo", "num_rounds=0", code=2
        ),
    }
    ratios = {}
    for name, answer in answers.items():
        pairs = [(answer(THIS), answer(other)) for _ in range(repetitions)]
        here, there = zip(*pairs, strict=True)
        print(f"{name}: {statistics.median(here):.2f} s here, {statistics.median(there):.2f} there")
        ratios[name] = median_ratio(here, there)
    return ratios


def main() -> None:
    quick, other = read_options(__doc__, must_compare=True)
    assert other
    repetitions = 2 if quick else 5
    print_machine()
    print(f"seconds until {' '.join(f'{stage:>10}' for stage in STAGES)}")
    first_steps = {model: compare_runs(model, other, repetitions) for model in TARGETS}
    answers = compare_answers(other, repetitions)
    print_machine()
    for model, ratio in first_steps.items():
        print(f"first step of {model}, here / there, ratio: {ratio:.2f} ({TARGETS[model]})")
    for name, ratio in answers.items():
        print(f"{name}, here / there, ratio: {ratio:.2f} (target {ANSWER_TARGET:g})")


if __name__ == "__main__":
    main()
