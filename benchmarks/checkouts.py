"""The same run by the command of this checkout and of another one, in turns.

Rounds are measured by the clock and in CPU time of worker 0, which says what the clock would show
on a machine with nothing else to do.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from setting import Settings

THIS = Path(__file__).resolve().parents[1]
BY_CPU = "import time\ntime.perf_counter = time.process_time\n"
"""Lets a run report CPU time for what it measures by the clock, in any checkout."""


class Run(NamedTuple):
    """What a run took: means over its rounds, less the first one and the last one.

    The first round has the costs of new memory, and the last one an evaluation.
    """

    seconds: float
    """By the clock, from the end of one round to the end of the next."""
    cpu_seconds: float
    """Of worker 0, like those of the exchange."""
    exchange_cpu_seconds: float
    peak_mib: float
    """Of the largest process."""
    digest: str


def command(root: Path) -> list[str]:
    """Return the command of a checkout that trains."""
    return [sys.executable, str(root / "scripts" / "train_federated.py")]


def words(settings: Settings) -> list[str]:
    """Write settings down as the command reads them after ``with``."""
    return [f"{name}={value!r}" for name, value in settings.items()]


def run(root: Path, settings: Settings, num_rounds: int = 6) -> Run:
    """Train a federation with one thread for each worker by the command of a checkout."""
    every = dict.fromkeys(("num_rounds", "eval_every", "save_every"), num_rounds)
    settings = settings | every | {"job_name": "job", "num_threads": 1}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sitecustomize.py").write_text(BY_CPU)
        path = {"PYTHONPATH": f"{folder}:{root}"}
        with (folder / "output").open("w") as output:
            process = subprocess.Popen(
                [*command(root), "with", *words(settings)],
                cwd=folder,
                env=os.environ | path,
                stdout=output,
                stderr=output,
            )
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{root}: the run failed:\n{(folder / 'output').read_text()}")
        journal = folder / "checkpoints" / "job" / "journal.jsonl"
        events = [json.loads(line) for line in journal.read_text().splitlines()]
    return _summary([e for e in events if e["event"] == "round"], usage.ru_maxrss / 1024)


def _summary(rounds: list[dict[str, Any]], peak_mib: float) -> Run:
    first, *inner = rounds[:-1]
    ends = [datetime.fromisoformat(event["time"]).timestamp() for event in (first, inner[-1])]

    def mean(metric: str) -> float:
        return statistics.fmean(event["metrics"][metric] for event in inner)

    return Run(
        seconds=(ends[1] - ends[0]) / len(inner),
        cpu_seconds=mean("time.round_seconds"),
        exchange_cpu_seconds=mean("time.exchange_seconds"),
        peak_mib=peak_mib,
        digest=rounds[-1]["digest"],
    )


def run_in_turns(
    sides: dict[str, Path], settings: Settings, num_pairs: int
) -> dict[str, list[Run]]:
    """Run every side so many times, in turns at being the first; all must agree on the digest."""
    found: dict[str, list[Run]] = {name: [] for name in sides}
    for number in range(num_pairs):
        for name in sorted(sides, reverse=bool(number % 2)):
            found[name].append(run(sides[name], settings))
    digests = {run.digest for runs in found.values() for run in runs}
    assert len(digests) == 1, f"the digests differ: {digests}"
    return found


def compare(title: str, settings: Settings, against: Path, num_pairs: int) -> None:
    """Print what a round takes here, and its ratio to the other checkout: least, median, most."""
    found = run_in_turns({"other": against, "this": THIS}, settings, num_pairs)
    print(f"{title}: this checkout to {against}")
    for name in ("seconds", "cpu_seconds", "peak_mib"):
        ours, theirs = ([getattr(run, name) for run in found[side]] for side in ("this", "other"))
        ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
        spread = " ".join(f"{r:.3f}" for r in (ratios[0], statistics.median(ratios), ratios[-1]))
        values = f"{statistics.median(ours):.3f} / {statistics.median(theirs):.3f}"
        print(f"{name:>14}: {values}, ratio: {spread} (least, median, most)", flush=True)
