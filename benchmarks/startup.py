"""Seconds from the command to the first training step, and of the commands that train nothing.

A run is started on a terminal of its own and watched until its first step shows; all caches are
warm. The comparison is a bare Python process that imports torch and transformers, loads the same
model and takes one step of the same size.
"""

import json
import os
import pty
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from checkouts import THIS, command
from setting import Settings, is_quick, median_ratio, print_machine

from scaling_fl.learning.models.packaged import minilm_folder

SCRIPT = str(THIS / "scripts" / "train_federated.py")
ANSWER_TARGET = 3.0
STAGES = ("parent", "imports", "data", "model", "first step")
MARKS = {"imports": b"on 1 CPU worker", "data": b"loading model", "first step": b"loss "}
BARE = """
import sys, torch, transformers
from transformers import AutoModelForSequenceClassification, BertConfig
name = sys.argv[1]
if name == "tiny":
    config = BertConfig(vocab_size=259, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=64, num_labels=4)
    model = transformers.BertForSequenceClassification(config)
else:
    model = AutoModelForSequenceClassification.from_pretrained(name, num_labels=4)
optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
ids = torch.randint(3, 259, (16, 64))
model.train()
model(input_ids=ids, labels=torch.zeros(16, dtype=torch.int64)).loss.backward()
optimiser.step()
"""


def settings(model: str) -> Settings:
    return {
        "device": "cpu",
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


def start_run(model: str) -> dict[str, float]:
    """Start a run, stop it at its first step, and return when each stage ended, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        master, slave = pty.openpty()
        began = time.time()
        process = subprocess.Popen(
            command(THIS, settings(model)),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=slave,
            env=_environment() | {"TERM": "xterm", "COLUMNS": "200"},
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


def _environment() -> dict[str, str]:
    """Leave out what would track this run elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SACRED_")}


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


def seconds_of(*words: str, code: int = 0) -> float:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, env=_environment()
    )
    assert done.returncode == code, done.stderr
    return time.perf_counter() - began


def compare(model: str, repetitions: int) -> float:
    """Start runs and bare processes in turn; prints the stages and returns the ratio."""
    bare_model = "tiny" if model == "tiny" else str(minilm_folder())
    start_run(model)  # fills the caches
    runs, bare = list[dict[str, float]](), list[float]()
    for _ in range(repetitions):
        runs.append(start_run(model))
        bare.append(seconds_of("-c", BARE, bare_model))
    ends = [statistics.median(run[stage] for run in runs) for stage in STAGES]
    stages = " ".join(f"{b - a:>10.2f}" for a, b in zip([0.0, *ends], ends, strict=False))
    print(f"{model:>7} {stages} {ends[-1]:>7.2f} {statistics.median(bare):>7.2f}", flush=True)
    return median_ratio([run["first step"] for run in runs], bare)


def time_answers(repetitions: int) -> dict[str, float]:
    """Time the commands that answer without training; a wrong setting ends with exit code 2."""
    answers: dict[str, Callable[[], float]] = {
        "--help": lambda: seconds_of(SCRIPT, "--help"),
        "print_config": lambda: seconds_of(SCRIPT, "print_config"),
        "a configuration error": lambda: seconds_of(SCRIPT, "with", "num_rounds=0", code=2),
    }
    return {
        name: statistics.median(answer() for _ in range(repetitions))
        for name, answer in answers.items()
    }


def main() -> None:
    repetitions = 1 if is_quick(__doc__) else 5
    print_machine()
    print(f"{'seconds':>7} {' '.join(f'{stage:>10}' for stage in STAGES)}   total    bare")
    ratios = {model: compare(model, repetitions) for model in ("tiny", "minilm")}
    answers = time_answers(repetitions)
    print_machine()
    for name, seconds in answers.items():
        print(f"{name}: {seconds:.2f} s (target {ANSWER_TARGET:g} s)")
    for model, ratio in ratios.items():
        print(f"first step of {model}, ratio: {ratio:.2f} (no target)")


if __name__ == "__main__":
    main()
