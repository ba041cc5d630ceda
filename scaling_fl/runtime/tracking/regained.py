"""What a journal has lost, as far as the run folder that was made from it still has it."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from scaling_fl.runtime.record.events import Event
from scaling_fl.runtime.record.journal import JobRecord
from scaling_fl.runtime.tracking.copies import FolderSource
from scaling_fl.runtime.tracking.runs import read_json, run_folders


def run_of(runs_dir: Path, checkpoints_url: str) -> JobRecord | None:
    """Find the newest run whose checkpoints are at an address, where no journal names its run."""
    for folder in reversed(run_folders(runs_dir) if runs_dir.is_dir() else []):
        config, info = read_json(folder / "config.json"), read_json(folder / "info.json")
        if not isinstance(config, dict) or not isinstance(info, dict) or not info.get("uid"):
            continue
        if config.get("checkpoints_dir") == checkpoints_url:
            return FolderSource(folder).load().record
    return None


def regain(folder: Path, record: JobRecord, lost: Collection[int]) -> list[Event]:
    """Make the events of lost rounds, and of the notes and checkpoints that went with them."""
    kept = FolderSource(folder).load().record
    metrics: dict[int, dict[str, float]] = {}
    times: dict[int, str] = {}
    for name, series in kept.metrics.items():
        rows = zip(series["steps"], series["values"], series["timestamps"], strict=True)
        for number, value, time in rows:
            metrics.setdefault(number, {})[name] = value
            times[number] = time
    events: list[Event] = [
        {
            "event": "round",
            "time": times[number],
            "round": number,
            "metrics": metrics[number],
            "clients": _of_round(kept.clients, number),
            "failures": _of_round(kept.failures, number),
            "digest": kept.digests.get(number),
        }
        for number in sorted(metrics.keys() & set(lost))
    ]
    last = max(lost)
    rows_of = {
        "checkpoint": [row for row in kept.checkpoints if row["round"] <= last],
        "note": [row for row in kept.notes if row not in record.notes],
    }
    known = [row["round"] for row in record.checkpoints]
    rows_of["checkpoint"] = [row for row in rows_of["checkpoint"] if row["round"] not in known]
    return events + [{"event": kind} | row for kind, rows in rows_of.items() for row in rows]


def _of_round(rows: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if key != "round"}
        for row in rows
        if row["round"] == number
    ]


def ranges(numbers: Collection[int]) -> str:
    """Write numbers as a person does: 2, 4 to 7."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][-1] + 1:
            found[-1] = [found[-1][0], number]
        else:
            found.append([number])
    return ", ".join(" to ".join(map(str, run)) for run in found)
