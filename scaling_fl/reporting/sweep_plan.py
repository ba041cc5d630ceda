"""Say what the runs of a sweep will cost, as text."""

from collections.abc import Sequence
from dataclasses import dataclass

from scaling_fl.reporting.summary import duration, size


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """A run of a sweep before it is run, or before it goes on."""

    label: str
    state: str
    """new, to resume, running, finished or failed."""
    rounds_done: int
    num_rounds: int
    bytes_left: int
    """What is still to be sent and received, by all clients together."""
    total_bytes: int
    epsilon: float | None
    delta: float | None
    seconds: float | None
    """What is left, where it was measured."""


def render(runs: Sequence[PlannedRun], *, name: str, num_slots: int) -> str:
    """Write a line for each run, and the sums of what is left; so many runs are at work at once."""
    has_epsilon = any(run.epsilon is not None for run in runs)
    has_time = any(run.seconds is not None for run in runs)
    header = ["run", "state", "rounds", "bytes"]
    header += ["epsilon"] * has_epsilon + ["time"] * has_time
    rows = [header, *(_cells(run, has_epsilon, has_time) for run in runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, "", *_sums(runs, name, num_slots)])


def _cells(run: PlannedRun, has_epsilon: bool, has_time: bool) -> list[str]:
    cells = [run.label, run.state, f"{run.rounds_done}/{run.num_rounds}", size(run.total_bytes)]
    if has_epsilon:
        cells.append("" if run.epsilon is None else f"{run.epsilon:.4g}")
    if has_time:
        cells.append("" if run.seconds is None else duration(run.seconds))
    return cells


def _sums(runs: Sequence[PlannedRun], name: str, num_slots: int) -> list[str]:
    states = [run.state for run in runs]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    left = [run for run in runs if run.state != "finished"]
    lines = [
        f"sweep {name}, {len(runs)} run{'s' * (len(runs) != 1)}: {counted}",
        f"bytes that are left: {size(sum(run.bytes_left for run in left))} of "
        f"{size(sum(run.total_bytes for run in runs))}",
    ]
    if measured := [run.seconds for run in left if run.seconds is not None]:
        beside = f", {num_slots} at once, if they do not slow each other down"
        seconds = max(max(measured), sum(measured) / num_slots)
        lines.append(f"time that is left: about {duration(seconds)}{beside * (num_slots > 1)}")
    if private := [run for run in runs if run.epsilon is not None]:
        epsilon = sum(run.epsilon or 0.0 for run in private)
        delta = sum(run.delta or 0.0 for run in private)
        lines.append(
            f"epsilon of all runs together: at most {epsilon:.4g} at delta {delta:.3g}, for "
            "whoever is a client of each"
        )
    return lines
