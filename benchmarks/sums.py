"""What exact sums and their exchange take of a round: 16 clients of one step, two workers.

The whole of MiniLM is trained, 4 texts a step, cut at 32 tokens. With ``--against`` the same is
done with another checkout, in turns, and both must come to the same digest.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from checkouts import THIS, Run, run_in_turns
from setting import LONG, print_machine, read_options

TARGET = 15
SETTINGS = LONG | {
    "site_ids": [0, 1],
    "num_clients": 16,
    "num_local_steps": 1,
    "batch_size": 4,
    "max_seq_len": 32,
    "data": {"max_train_examples": 320, "max_test_examples": 80},
}


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


def share(runs: list[Run]) -> float:
    """Return what sums and exchange take of a round, by CPU time, in percent."""
    return 100 * statistics.median(run.exchange_cpu_seconds / run.cpu_seconds for run in runs)


def main() -> None:
    quick, against = read_options(__doc__)
    sides = {"this": THIS} | ({"other": against} if against else {})
    print_machine()
    compare_alone(sides)
    found = run_in_turns(sides, SETTINGS, 1 if quick else 3)
    print(f"{'':>16}  round s  CPU s  exchange CPU s")
    for name, runs in found.items():
        whole, cpu, exchange = (statistics.median(c) for c in list(zip(*runs, strict=True))[:3])
        print(f"{name:>16} {whole:>8.2f} {cpu:>6.2f} {exchange:>15.3f}")
    print_machine()
    for name, runs in found.items():
        target = f" (target {TARGET} at most)" if name == "this" else ""
        text = "share of a round's CPU time in sums and exchange"
        print(f"{name}: {text}: {share(runs):.1f} %{target}")


if __name__ == "__main__":
    main()
