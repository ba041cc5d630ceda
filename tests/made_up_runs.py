"""Runs that nobody has trained, as the benchmark of the report makes them up."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scaling_fl.commands.measured import report_run
from scaling_fl.reporting.report.data import ReportRun
from scaling_fl.runtime.tracking.listing import places_of_runs
from scaling_fl.runtime.tracking.sources import open_run
from tests.from_benchmarks import load

_MADE = load("made_up_runs")
MadeUp, write, grid = _MADE.MadeUp, _MADE.write, _MADE.grid


def of(seed: int = 1, rounds: int = 4, **changes: Any) -> Any:
    """Make up a run of a seed, which differs from others of its settings in little."""
    fields = {name: changes.pop(name) for name in list(changes) if name in _FIELDS}
    settings = {"seed": seed, "data_seed": seed, "num_rounds": rounds} | changes
    return MadeUp(settings=settings, **fields)


_FIELDS = set(MadeUp.__dataclass_fields__) - {"settings"}


def read(runs: Sequence[Any], folder: Path, metric: str | None = None) -> list[ReportRun]:
    """Write runs and read them back, as a report has them."""
    write(runs, folder)
    places = places_of_runs(str(folder / "runs"))
    return [report_run(open_run(place), metric) for place in places]
