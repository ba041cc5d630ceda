"""Runs as rows: what a list of runs tells of each, as text, JSON and CSV."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from scaling_fl.core.json_text import json_text
from scaling_fl.core.metric_names import is_of_all
from scaling_fl.reporting.summary import size

NAMES_AND_PLACES = {"job_name", "author", "checkpoints_dir", "tracking.runs_dir", "data.cache_dir"}
"""Settings that say who and where, and nothing of what was computed."""
MAX_JOB = 22
BUDGETS = {
    "stop_when.bytes": "bytes",
    "stop_when.seconds": "seconds",
    "stop_when.epsilon": "epsilon",
    "privacy.max_epsilon": "epsilon",
}
"""Setting that ends a run before its last round -> the column that says what was spent."""


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """What a run has come to, in plain values; None where its record does not say."""

    run: str
    """Its folder, the place of its checkpoints, or its number in the database."""
    job: str | None
    status: str
    task: str | None
    rounds: int
    num_rounds: int
    bytes: int | None
    """Sent and received by all clients, in all rounds."""
    epsilon: float | None
    seconds: float | None
    """The time that its rounds took, on the machine that it ran on."""
    message: str | None
    """Why it ended, if it did not come to its end."""
    stopped_by: str | None
    """The rule that ended it before its last round."""
    started: str | None
    host: str | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Dotted path -> value."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The last value of each metric."""

    def value(self, name: str) -> Any:
        """Look up a column, a metric or a setting; None where there is none of that name."""
        if name in COLUMNS:
            return getattr(self, name)
        return self.metrics.get(name, self.settings.get(name))


COLUMNS = tuple(each.name for each in fields(RunRow) if each.name not in ("settings", "metrics"))


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, value) of every setting."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name the settings in which runs differ, by dotted path, in the order of the first run."""
    names = dict.fromkeys(name for each in settings for name in each)
    return [
        name
        for name in names
        if name not in NAMES_AND_PLACES and len({repr(each.get(name)) for each in settings}) > 1
    ]


def main_metric(names: Iterable[str]) -> str | None:
    """Choose the metric by which runs are told apart: an accuracy, else another one of the task.

    Of a language model that is asked nothing it is the loss of all test tokens.
    """
    found = sorted({name for name in names if is_of_all(name)})
    of_task = [name for name in found if name.startswith("validation.")]
    better = [name for name in of_task if name != "validation.loss"]
    accuracies = [name for name in better if name.endswith(".accuracy")]
    losses = ["validation.loss"] if "validation.perplexity" in found else []
    wanted = ("validation.accuracy", *accuracies, *losses, *better, *of_task)
    preferred = [name for name in wanted if name in found]
    return preferred[0] if preferred else None


def names_in(rows: Iterable[RunRow]) -> list[str]:
    """List all names that ``RunRow.value`` knows in some rows."""
    names = dict.fromkeys(COLUMNS)
    for row in rows:
        names |= dict.fromkeys([*row.metrics, *row.settings])
    return list(names)


def render(rows: Sequence[RunRow], *, metric: str | None, width: int | None) -> str:
    """Write a line for each run; ``width`` cuts lines to a terminal's columns, None cuts none."""
    names = differing([row.settings for row in rows])
    table = [_header(rows, metric), *(_cells(row, rows, metric) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    labels = ["differs in", *(_label(row, names) for row in rows)]
    jobs = ["job", *(row.job or "-" for row in rows)]
    longest = max(map(len, jobs))
    room = longest if width is None else min(longest, MAX_JOB)
    lines = []
    for cells, job, label in zip(table, jobs, labels, strict=True):
        text = "  ".join(
            cell.ljust(size) if index < 2 else cell.rjust(size)
            for index, (cell, size) in enumerate(zip(cells, widths, strict=True))
        )
        lines.append(_cut(f"{text}  {_cut(job, room):<{room}}  {label}".rstrip(), width))
    return "\n".join(lines)


def _header(rows: Sequence[RunRow], metric: str | None) -> list[str]:
    header = ["run", "status", "rounds"]
    header += [metric.removeprefix("validation.")] if metric else []
    return [*header, "bytes", *["epsilon"] * _any_epsilon(rows)]


def _cells(row: RunRow, rows: Sequence[RunRow], metric: str | None) -> list[str]:
    cells = [row.run, row.status, f"{row.rounds}/{row.num_rounds or '?'}"]
    if metric:
        value = row.value(metric)
        cells.append(
            f"{value:.4f}" if isinstance(value, float) else "-" if value is None else shown(value)
        )
    cells.append("-" if row.bytes is None else size(row.bytes))
    if _any_epsilon(rows):
        cells.append("-" if row.epsilon is None else f"{row.epsilon:.3g}")
    return cells


def _any_epsilon(rows: Iterable[RunRow]) -> bool:
    return any(row.epsilon is not None for row in rows)


def _label(row: RunRow, names: Iterable[str]) -> str:
    label = " ".join(f"{name}={shown(row.settings.get(name))}" for name in names)
    stopped = row.stopped_by and f"ended by {row.stopped_by}"
    spent = _spent(row) if row.status == "RUNNING" else []
    return " | ".join(part for part in (label, *spent, stopped, row.message) if part)


def _spent(row: RunRow) -> list[str]:
    """Say how much a run has spent of each budget that may end it."""
    told = [(path, row.settings.get(path), getattr(row, name)) for path, name in BUDGETS.items()]
    return [
        f"{min(has / most, 1.0):.0%} of {path}={most:.15g}"
        for path, most, has in told
        if most and has
    ]


def shown(value: Any) -> str:
    """Write the value of a setting as it is typed."""
    return json_text(value) if isinstance(value, list | Mapping) else str(value)


def _cut(text: str, width: int | None) -> str:
    return text if width is None or len(text) <= width else f"{text[: width - 1]}…"


def as_json(rows: Iterable[RunRow]) -> str:
    """Write a list with an object for each run; its settings and metrics are objects in it."""
    found = [
        {name: getattr(row, name) for name in COLUMNS}
        | {"metrics": dict(row.metrics), "settings": dict(row.settings)}
        for row in rows
    ]
    return json_text(found, indent=1)


def as_csv(rows: Sequence[RunRow]) -> str:
    """Write a table: the columns, all metrics, and the settings in which the runs differ."""
    metrics = dict.fromkeys(name for row in rows for name in row.metrics)
    names = [*COLUMNS, *metrics, *differing([row.settings for row in rows])]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        cells = [row.value(name) for name in names]
        writer.writerow(["" if cell is None else _plain(cell) for cell in cells])
    return text.getvalue()


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else json_text(value)
