"""What it takes to list 500 runs of 100 rounds, and to build and open the page that compares them.

    python benchmarks/report.py [--quick]

The runs are made up: 20 clients, 10 in a round, a grid over three seeds, each with a journal and a
run folder as a real one. Commands are timed as they are typed, from their start to their end, and
so is the page of a single run, which every run leaves at its end. The page is opened in Chromium
without a screen, where one is installed, from the call to the load event and until the charts that
a window of 1280 x 900 shows are drawn. ``--quick`` makes up 30 runs.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from browser import browser, installed
from checkouts import THIS
from made_up_runs import grid, write
from setting import is_quick, print_machine

from scaling_fl.commands.charting import bundle
from scaling_fl.commands.run_page import leave_page
from scaling_fl.runtime.tracking.sources import open_run

NUM_RUNS, QUICK_RUNS, NUM_ROUNDS = 500, 30, 100
REPEATS = 3
TARGETS = {"build": 20.0, "open": 3.0, "page": 15.0, "a run": 0.3}
"""Seconds, and of the page MB (10^6 bytes)."""
DRAWN = """[...document.querySelectorAll(".chart")].every((chart) => chart.dataset.drawn
    || chart.closest("[hidden]") || chart.getBoundingClientRect().top > innerHeight)"""
LOADED = "return performance.getEntriesByType('navigation')[0].loadEventEnd"


def timed(folder: Path, script: str, *options: str) -> float:
    """Run a command in a folder; returns its seconds."""
    began = time.perf_counter()
    command = [sys.executable, str(THIS / "scripts" / script), *options]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - began


def opened(page: Path) -> Iterator[tuple[float, float]]:
    """Open a page some times; yields the seconds to its load event, and until charts are drawn."""
    with browser() as window:
        window.resize(1280, 900)
        for _ in range(REPEATS):
            began = time.perf_counter()
            window.open(page)
            loaded = window.run(LOADED) / 1000
            window.wait_for(DRAWN)
            yield loaded, time.perf_counter() - began


def row(name: str, seconds: Sequence[float], target: str = "") -> None:
    middle, low, high = statistics.median(seconds), min(seconds), max(seconds)
    print(f"| {name} | {middle:.2f} ({low:.2f} to {high:.2f}) | {target} |", flush=True)


def main() -> None:
    num_runs = QUICK_RUNS if is_quick(__doc__) else NUM_RUNS
    print_machine()
    bundle()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write(grid(num_runs, NUM_ROUNDS), folder)
        print(f"\n| {num_runs} runs of {NUM_ROUNDS} rounds | seconds | target |\n|---|---|---|")
        row("list them", [timed(folder, "runs.py") for _ in range(REPEATS)])
        builds = [timed(folder, "report.py") for _ in range(REPEATS)]
        row("build the page and the tables", builds, f"{TARGETS['build']:.0f}")
        run, own = open_run(str(folder / "runs" / "1")), []
        for _ in range(REPEATS):
            began = time.perf_counter()
            leave_page(run)
            own.append(time.perf_counter() - began)
        row("the page that a run leaves", own, f"{TARGETS['a run']:.1f}")
        page = folder / "report" / "index.html"
        if installed():
            loads, drawn = zip(*opened(page), strict=True)
            row("open it in Chromium: load event", loads)
            row("open it in Chromium: charts drawn", drawn, f"{TARGETS['open']:.0f}")
        else:
            print("no Chromium with chromedriver here: not opened")
        size = page.stat().st_size / 1e6
        print(f"\nsize of the page: {size:.1f} MB (target {TARGETS['page']:.0f})")
        small = (folder / "runs" / "1" / "report.html").stat().st_size / 1e3
        print(f"size of the page of a run: {small:.1f} kB, and one script for all")
    print_machine()


if __name__ == "__main__":
    main()
