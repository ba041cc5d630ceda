"""Federated averaging by Flower's own FedAvg, by the engine, and by the engine's front on Flower.

Each side does the same steps on the same texts with AdamW, in as many processes of one thread as
the engine has workers: two, which Flower makes of a machine with two cores. The
losses of Flower's own must be the engine's, up to the order of sums in fp32; the digests of the
engine and of the front must be equal. Needs the extra ``flower``.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from checkouts import THIS, command, words
from setting import LONG, Settings, is_quick, one_epoch, print_machine

from scaling_fl.flower.control import COMPLETED
from scaling_fl.flower.following import Following
from scaling_fl.flower.simulation import simulation

APP = Path(__file__).with_name("flower_app")
NUM_WORKERS = 2
TOLERANCE = 1e-4
"""Of a mean training loss: Flower sums arrays in the order of arrival, in fp32."""
TINY = LONG | {"model": "tiny", "max_seq_len": 32, "batch_size": 4}


class Side(NamedTuple):
    """What a side took."""

    seconds: float
    """The whole command by the clock."""
    round_seconds: float
    """Median from the end of one round to the end of the next."""
    num_bytes: int
    """Payload of a round, down and up."""
    losses: list[float]
    digest: str = ""


def flowers_own(settings: Settings, num_rounds: int, folder: Path) -> Side:
    """Run the app beside this file in Flower's simulation."""
    out = folder / "own.json"
    options = {"settings": json.dumps(settings), "num-clients": settings["num_clients"]}
    options |= {"num-rounds": num_rounds, "out": str(out)}
    federation = {"num-supernodes": settings["num_clients"], "client-resources-num-cpus": 1}
    lines: list[str] = []
    began = time.perf_counter()
    environ = os.environ | {"PYTHONPATH": str(THIS), "OMP_NUM_THREADS": "1"}
    with simulation(environ, folder / "memory") as running:
        run_id = running.control.submit(APP, options, federation)
        found = Following(running.control, run_id, lines.append, running.is_alive).until_over()
    seconds = time.perf_counter() - began
    if found.status != COMPLETED or not out.exists():
        raise SystemExit("\n".join([*lines, f"Flower's own: {found.status} {found.details}"]))
    told = json.loads(out.read_text())
    return Side(seconds, _median_gap(told["ends"]), told["bytes"], told["losses"])


def engine(settings: Settings, num_rounds: int, folder: Path) -> Side:
    """Run the command that trains, on two workers."""
    return _ours(command(THIS), settings, num_rounds, folder / "engine")


def front(settings: Settings, num_rounds: int, folder: Path) -> Side:
    """Run the command that trains on Flower, on a simulated node for each worker of the engine."""
    nodes = ["--nodes", str(NUM_WORKERS)]
    script = [sys.executable, str(THIS / "scripts" / "flower_run.py"), *nodes]
    return _ours(script, settings, num_rounds, folder / "front")


def _ours(typed: list[str], settings: Settings, num_rounds: int, folder: Path) -> Side:
    folder.mkdir()
    every = dict.fromkeys(("num_rounds", "eval_every", "save_every"), num_rounds)
    settings = settings | every | {"job_name": "job", "num_threads": 1}
    settings |= {"site_ids": list(range(NUM_WORKERS))}
    began = time.perf_counter()
    done = subprocess.run(
        [*typed, "with", *words(settings)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(THIS)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{typed}: the run failed:\n{done.stdout}")
    journal = folder / "checkpoints" / "job" / "journal.jsonl"
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    rounds = [event for event in events if event["event"] == "round"]
    ends = [datetime.fromisoformat(event["time"]).timestamp() for event in rounds]
    num_bytes = sum(c["download_bytes"] + c["upload_bytes"] for c in rounds[-1]["clients"])
    losses = [event["metrics"]["train.loss"] for event in rounds]
    return Side(seconds, _median_gap(ends), num_bytes, losses, rounds[-1]["digest"])


def _median_gap(ends: list[float]) -> float:
    return statistics.median(b - a for a, b in pairwise(ends))


def check_same_work(own: Side, ours: Side, over_flower: Side) -> None:
    """Require equal losses in every round, and equal bits of the engine and its front."""
    pairs = zip(own.losses, ours.losses, strict=True)
    difference = max(abs(a - b) for a, b in pairs)
    assert difference < TOLERANCE, f"the losses differ by {difference}"
    assert ours.digest == over_flower.digest, "the digests of the engine and its front differ"
    print(f"largest difference of losses: {difference:.1e}; digests are equal")


def compare(title: str, settings: Settings, num_rounds: int) -> None:
    """Run the three sides, one after the other, and print a row for each."""
    with tempfile.TemporaryDirectory() as name:
        sides = {
            way.__name__: way(settings, num_rounds, Path(name))
            for way in (flowers_own, engine, front)
        }
    own = sides["flowers_own"]
    for way, side in sides.items():
        print(
            f"{title:>10} {way:>11} {side.seconds:>8.1f} {side.seconds / own.seconds:>6.2f}"
            f" {side.round_seconds:>8.3f} {side.round_seconds / own.round_seconds:>6.2f}"
            f" {side.num_bytes:>12,}",
            flush=True,
        )
    check_same_work(*sides.values())


def main() -> None:
    quick = is_quick(__doc__)
    print_machine()
    print(
        f"{'':>10} {'side':>11} {'whole s':>8} {'ratio':>6} {'round s':>8} {'ratio':>6}"
        f" {'bytes':>12}"
    )
    if quick:
        compare("4 tiny", one_epoch(4, 8, TINY), 3)
    else:
        compare("MiniLM", one_epoch(4, 40, LONG | {"max_seq_len": 128}), 3)
        compare("16 tiny", one_epoch(16, 32, TINY), 4)
        compare("100 tiny", one_epoch(100, 200, TINY), 4)
    print_machine()


if __name__ == "__main__":
    main()
