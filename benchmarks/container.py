"""A container against the bare machine: training throughput, a call's overhead, a rebuild.

Both sides run the same federation through the same command and must come to the same digest.
Needs a Docker engine; the image is built first and its time is not counted.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from checkouts import THIS
from setting import is_quick, median_ratio, print_machine

RUN_LOCAL = str(THIS / "run-local.sh")
SCRIPT = str(THIS / "scripts" / "train_federated.py")
MARK = THIS / "scaling_fl" / "benchmark_of_rebuild.py"
RUN = [
    "with",
    "demo",
    "site_ids=[0,1]",
    "num_threads=1",
    "num_rounds=6",
    "data.max_train_examples=160",
    "data.max_test_examples=80",
    "job_name=job",
]


def outside(folder: str, *arguments: str) -> float:
    return timed([sys.executable, SCRIPT, *arguments], folder)


def inside(folder: str, *arguments: str) -> float:
    return timed([RUN_LOCAL, "scripts/train_federated.py", *arguments], folder)


def timed(command: list[str], folder: str) -> float:
    began = time.monotonic()
    environ = os.environ | {"RUNTIME": "docker"}
    subprocess.run(command, cwd=folder, env=environ, check=True, capture_output=True)
    return time.monotonic() - began


def train(side: str) -> tuple[float, str]:
    """Run the federation on one side; returns the median round's seconds and its digest."""
    with tempfile.TemporaryDirectory() as folder:
        {"inside": inside, "outside": outside}[side](folder, *RUN)
        run = Path(folder) / "runs" / "1"
        seconds = json.loads((run / "metrics.json").read_text())["time.train_seconds"]["values"]
        digest = json.loads((run / "info.json").read_text())["last_digest"]
    return statistics.median(seconds), digest


def throughput(num_pairs: int) -> None:
    pairs = []
    for number in range(num_pairs):
        # The two take turns at being the first.
        order = ("outside", "inside") if number % 2 else ("inside", "outside")
        found = {side: train(side) for side in order}
        assert found["inside"][1] == found["outside"][1], "the two sides trained differently"
        pairs.append((found["inside"][0], found["outside"][0]))
        print(f"seconds a round: inside {pairs[-1][0]:.2f}, outside {pairs[-1][1]:.2f}, same bits")
    ratio = median_ratio([a for a, _ in pairs], [b for _, b in pairs])
    print(f"ratio: container / machine, training time {ratio:.3f} (target 0.95 to 1.05)")


def overhead(num_pairs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        more = [
            inside(folder, "print_config") - outside(folder, "print_config")
            for _ in range(num_pairs)
        ]
    print(
        f"a call without changes: {statistics.median(more):.2f} s more than the script (target 5)"
    )


def rebuild() -> None:
    try:
        MARK.write_text(f'"""Only to change the code: {time.time()}."""\n')
        with tempfile.TemporaryDirectory() as folder:
            changed = inside(folder, "print_config")
            unchanged = inside(folder, "print_config")
    finally:
        MARK.unlink()
    print(f"a rebuild after a change of the code: {changed - unchanged:.1f} s (target 15)")


def main() -> None:
    quick = is_quick(__doc__)
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        inside(folder, "print_config")
    overhead(3 if quick else 7)
    rebuild()
    throughput(2 if quick else 5)
    print_machine()


if __name__ == "__main__":
    main()
