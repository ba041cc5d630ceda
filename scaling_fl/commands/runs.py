"""The command ``scripts/runs.py``: which runs there are, and what each has come to."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from scaling_fl.commands.endings import end, show, stage
from scaling_fl.commands.run_query import (
    RunCondition,
    check_known,
    read_condition,
    read_places,
    row_of,
    select,
)
from scaling_fl.reporting.folding import width_of
from scaling_fl.reporting.run_rows import (
    RunRow,
    as_csv,
    as_json,
    main_metric,
    names_in,
    render,
)


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """What is listed, in which order, and how it is written."""

    places: Sequence[str]
    status: str | None = None
    task: str | None = None
    job: str | None = None
    where: Sequence[str] = ()
    metric: str | None = None
    sort: str | None = None
    is_descending: bool = False
    form: Literal["text", "json", "csv"] = "text"


def main(options: ListOptions) -> int:
    """List runs; returns the exit code."""
    return end(partial(_run, options))


def _run(options: ListOptions) -> None:
    conditions = list(_conditions(options))
    rows = [row_of(run) for run in read_places(options.places, with_clients=False)]
    found = _sorted(select(rows, conditions), options)
    if options.metric and rows:
        check_known(options.metric, names_in(rows))
    if options.form == "json":
        show(as_json(found))
    elif options.form == "csv":
        show(as_csv(found).removesuffix("\n"))
    elif found:
        metric = options.metric or main_metric(name for row in found for name in row.metrics)
        show(render(found, metric=metric, width=width_of(sys.stdout)))
    if not found:
        where = " ".join(options.places)
        stage(f"No run of {where} is meant, of {len(rows)}." if rows else f"No run is in {where}.")


def _conditions(options: ListOptions) -> Iterator[RunCondition]:
    for name, wanted in (("status", options.status), ("task", options.task), ("job", options.job)):
        if wanted:
            yield RunCondition(name, "=", wanted)
    for text in options.where:
        yield read_condition(text, "--where")


def _sorted(rows: list[RunRow], options: ListOptions) -> list[RunRow]:
    """Put the rows in order; those without the value come last either way."""
    if not options.sort:
        return rows[::-1] if options.is_descending else rows
    name = options.sort
    if rows:
        check_known(name, names_in(rows))
    with_value = [row for row in rows if row.value(name) is not None]
    without = [row for row in rows if row.value(name) is None]
    return sorted(with_value, key=partial(_key, name), reverse=options.is_descending) + without


def _key(name: str, row: RunRow) -> tuple[bool, Any]:
    """Order numbers by value, and before texts; a list of a setting is a text, too."""
    value = row.value(name)
    is_number = isinstance(value, int | float)
    return (not is_number, value if is_number else str(value))
