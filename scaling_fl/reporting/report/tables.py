"""All numbers behind the page, as CSV and Parquet files that hold the same."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scaling_fl.reporting.report.data import ReportRun
from scaling_fl.reporting.report.equal_budget import BudgetView
from scaling_fl.reporting.report.groups import RunGroup
from scaling_fl.reporting.run_rows import COLUMNS, differing, shown

Columns = dict[str, list[Any]]


def write_tables(
    folder: Path, groups: Sequence[RunGroup], views: Sequence[Sequence[BudgetView]]
) -> list[str]:
    """Write every table that has a row, each as CSV and Parquet; returns their names.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables: dict[str, Columns] = {
        "runs": _runs(groups),
        "rounds": _rounds(groups),
        "clients": _clients(groups),
        "failures": _failures(groups),
        "comparisons": _comparisons(views),
    }
    written = []
    for name, columns in tables.items():
        if any(columns.values()):
            written += _write(folder, name, columns)
    return written


def _write(folder: Path, name: str, columns: Columns) -> list[str]:
    import pyarrow as pa
    from pyarrow import csv, parquet

    table = pa.table(columns)
    csv.write_csv(table, folder / f"{name}.csv")
    parquet.write_table(table, folder / f"{name}.parquet")
    return [f"{name}.csv", f"{name}.parquet"]


def _members(groups: Iterable[RunGroup]) -> list[tuple[str, ReportRun]]:
    return [(group.label, run) for group in groups for run in (*group.runs, *group.repeated)]


def _runs(groups: Sequence[RunGroup]) -> Columns:
    members = _members(groups)
    settings = differing([run.row.settings for _, run in members])
    metrics = dict.fromkeys(name for _, run in members for name in run.row.metrics)
    columns: Columns = {name: [getattr(run.row, name) for _, run in members] for name in COLUMNS}
    columns["group"] = [label for label, _ in members]
    columns["compared_by"] = [run.metric for _, run in members]
    for part in dict.fromkeys(name for _, run in members for name in run.measured.measure):
        columns[f"measured: {part}"] = [_text(run.measured.measure.get(part)) for _, run in members]
    columns |= {name: [run.row.metrics.get(name) for _, run in members] for name in metrics}
    return columns | {n: [shown(run.row.settings.get(n)) for _, run in members] for n in settings}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _rounds(groups: Sequence[RunGroup]) -> Columns:
    """Make a row for each run and round, with a column for each metric."""
    members = _members(groups)
    names = list(dict.fromkeys(name for _, run in members for name in run.curves))
    columns: Columns = {name: [] for name in ("run", "group", "round", *names)}
    for label, run in members:
        curves = {name: dict(zip(*curve, strict=True)) for name, curve in run.curves.items()}
        rounds = sorted({number for curve in curves.values() for number in curve})
        columns["run"] += [run.row.run] * len(rounds)
        columns["group"] += [label] * len(rounds)
        columns["round"] += rounds
        for name in names:
            curve = curves.get(name, {})
            columns[name] += [curve.get(number) for number in rounds]
    return columns


def _clients(groups: Sequence[RunGroup]) -> Columns:
    members = _members(groups)
    found = dict.fromkeys(name for _, run in members for row in run.clients[:1] for name in row)
    found |= dict.fromkeys(name for _, run in members for row in run.clients[-1:] for name in row)
    columns: Columns = {"run": [run.row.run for _, run in members for _ in run.clients]}
    return columns | {n: [row.get(n) for _, run in members for row in run.clients] for n in found}


def _failures(groups: Sequence[RunGroup]) -> Columns:
    rows: list[Mapping[str, Any]] = [
        {"run": run.row.run, **row} for _, run in _members(groups) for row in run.failures
    ]
    return {name: [row.get(name) for row in rows] for name in ("run", "round", "client", "reason")}


def _comparisons(views: Sequence[Sequence[BudgetView]]) -> Columns:
    rows = [
        {
            "part": part + 1,
            "budget": view.budget,
            "amount": view.amount,
            "group": each.group.label,
            "runs": len(each.group.runs),
            "mean": each.mean and each.mean.mean,
            "half_width_95": each.mean and each.mean.half,
            "deviation": each.mean and each.mean.deviation,
            "reference": view.reference and view.reference.label,
            "pairs": each.difference and each.difference.mean and each.difference.mean.count,
            "difference": each.difference and each.difference.mean and each.difference.mean.mean,
            "difference_half_width_95": each.difference
            and each.difference.mean
            and each.difference.mean.half,
            "verdict": each.verdict,
        }
        for part, of_set in enumerate(views)
        for view in of_set
        for each in view.reached
    ]
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
