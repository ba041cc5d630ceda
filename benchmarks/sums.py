"""What exact sums and their exchange take of a round: 16 clients of one step, two workers.

The whole of MiniLM is trained, 4 texts a step, cut at 32 tokens. With ``--other`` the same is done
with another checkout, in turns, and both must come to the same digest. Rounds are timed by the
clock, and then by the CPU time of worker 0, which says what the clock would show on a machine
with nothing else to do.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from setting import print_machine

THIS = Path(__file__).resolve().parents[1]
TARGET = 15
RUN = [
    "with",
    "job_name=job",
    "device=cpu",
    "num_threads=1",
    "site_ids=[0,1]",
    "num_clients=16",
    "num_local_steps=1",
    "batch_size=4",
    "max_seq_len=32",
    "model=minilm",
    "optimiser=adamw",
    "learning_rate=0.0001",
    "task_name=20newsgroups_topics",
    "data.max_train_examples=320",
    "data.max_test_examples=80",
]
BY_CPU = "import time\ntime.perf_counter = time.process_time\n"
"""Lets a run measure in CPU time what it measures by the clock, in any checkout."""


class Rounds:
    """Seconds of the rounds of one side, by one kind of time."""

    def __init__(self) -> None:
        self.whole: list[float] = []
        self.exchange: list[float] = []

    def share(self) -> float:
        return 100 * statistics.median(
            e / w for e, w in zip(self.exchange, self.whole, strict=True)
        )

    def show(self, name: str) -> None:
        whole, exchange = (statistics.median(column) for column in (self.whole, self.exchange))
        print(f"{name:>16} {whole:>8.2f} {exchange:>9.3f} {self.share():>6.1f} %", flush=True)


def run(root: Path, num_rounds: int, rounds: Rounds, *, by_cpu: bool) -> str:
    """Train a federation with the command of a checkout, add up its times, return its digest.

    The first round has the costs of new memory and the last one an evaluation: both are left out.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sitecustomize.py").write_text(BY_CPU if by_cpu else "")
        every = [f"{name}={num_rounds}" for name in ("num_rounds", "eval_every", "save_every")]
        subprocess.run(
            [sys.executable, str(root / "scripts" / "train_federated.py"), *RUN, *every],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": f"{folder}:{root}"},
            check=True,
            capture_output=True,
        )
        found = Path(folder) / "runs" / "1"
        metrics = json.loads((found / "metrics.json").read_text())
        digest: str = json.loads((found / "info.json").read_text())["last_digest"]
    rounds.whole += metrics["time.round_seconds"]["values"][1:-1]
    rounds.exchange += metrics["time.exchange_seconds"]["values"][1:-1]
    return digest


def compare_alone(sides: dict[str, Path]) -> None:
    """Measure the sums of 22.7 million coordinates with nothing around them."""
    digests = set()
    print("alone, ms by the clock / of CPU time:")
    for name, root in sides.items():
        script = str(Path(__file__).with_name("sums_alone.py"))
        answer = subprocess.run(
            [sys.executable, script],
            env=os.environ | {"PYTHONPATH": str(root)},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        found = json.loads(answer.stdout)
        digests.add(found["digest"])
        times = ", ".join(f"{n} {clock:.1f} / {cpu:.1f}" for n, (clock, cpu) in found["ms"].items())
        print(f"{name:>16} {times}", flush=True)
    assert len(digests) == 1, "the sums differ"


def compare_rounds(sides: dict[str, Path], num_pairs: int) -> dict[str, float]:
    """Return what sums and exchange take of a round on each side, by CPU time, in percent."""
    for by_cpu in (False, True):
        rounds = {name: Rounds() for name in sides}
        digests = {
            run(root, 6, rounds[name], by_cpu=by_cpu)
            for _ in range(num_pairs)
            for name, root in sides.items()
        }
        assert len(digests) == 1, f"the digests differ: {digests}"
        print(f"{'CPU time' if by_cpu else 'the clock':>16}  round s exchange s  share")
        for name, found in rounds.items():
            found.show(name)
    print(f"digest: {digests.pop()}")
    return {name: found.share() for name, found in rounds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--other", type=Path, help="a checkout to compare with")
    options = parser.parse_args()
    sides = {"this": THIS} | ({"other": options.other.resolve()} if options.other else {})
    print_machine()
    compare_alone(sides)
    shares = compare_rounds(sides, 1 if options.quick else 3)
    print_machine()
    for name, share in shares.items():
        target = f" (target {TARGET} at most)" if name == "this" else ""
        print(f"{name}: share of a round's CPU time in sums and exchange: {share:.1f} %{target}")


if __name__ == "__main__":
    main()
