"""The command ``scripts/report.py``: a page and tables that compare runs."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from scaling_fl.commands.charting import bundle, page_script
from scaling_fl.commands.endings import Misused, end, show, stage
from scaling_fl.commands.measured import report_run
from scaling_fl.commands.run_page import leave_script
from scaling_fl.commands.run_query import (
    RunCondition,
    check_known,
    read_condition,
    read_places,
    row_of,
    select,
)
from scaling_fl.reporting.report.claim_section import TriedClaim
from scaling_fl.reporting.report.data import ReportRun
from scaling_fl.reporting.report.equal_budget import budget_views
from scaling_fl.reporting.report.groups import NO_EFFECT, RunGroup, alike_sets, group_runs
from scaling_fl.reporting.report.page import Report, render
from scaling_fl.reporting.report.results_only import results_only
from scaling_fl.reporting.report.tables import write_tables
from scaling_fl.reporting.run_rows import NAMES_AND_PLACES, RunRow, names_in
from scaling_fl.runtime.storage.base import explained
from scaling_fl.runtime.tracking.run_files import replace_file
from scaling_fl.runtime.tracking.runs import Run, from_here

PAGE = "index.html"


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Which runs are compared, by what, and where the report goes."""

    places: Sequence[str]
    out: Path
    sweep: str | None = None
    query: Sequence[str] = ()
    metric: str | None = None
    reference: Sequence[str] = ()
    is_results_only: bool = False
    """Leave out times, machines, starts and run numbers."""


def main(options: ReportOptions) -> int:
    """Write the report; returns the exit code."""
    # Hundreds of runs are millions of values, none of which is garbage before the page is written.
    gc.disable()
    try:
        return end(partial(_run, options))
    finally:
        gc.enable()


def _run(options: ReportOptions) -> None:
    conditions = list(_conditions(options))
    stage("reading the runs")
    runs = read_places(options.places, with_clients=True)
    found = _chosen(runs, conditions, options)
    write_report([report_run(run, options.metric) for run in found], options)


def write_report(
    runs: Sequence[ReportRun], options: ReportOptions, claim: TriedClaim | None = None
) -> None:
    """Write the page and the tables of runs, and of the claim that they try.

    Raises:
        Misused: the reference is no group of the runs.
        StorageError: the report cannot be written.
    """
    described = [results_only(run) for run in runs] if options.is_results_only else runs
    report = make_report(described, options, claim)
    bundle()
    stage(f"writing the report of {len(runs)} run{'s' * (len(runs) != 1)}")
    page, script = options.out / PAGE, page_script()
    with explained(f"write the report to {options.out}"):
        replace_file(page, render(report, script).encode())
    for folder in {Path(run.folder).parent for run in runs if run.folder}:
        with suppress(OSError):  # the runs may be somebody else's
            leave_script(script, folder)
    show(f"wrote {from_here(str(page.absolute()))}, and all numbers to {options.out / 'tables'}")


def make_report(
    runs: Sequence[ReportRun], options: ReportOptions, claim: TriedClaim | None = None
) -> Report:
    """Group the runs, write the tables, and collect what the page shows.

    Raises:
        Misused: the reference is no group of the runs.
        StorageError: the tables cannot be written.
    """
    sets = alike_sets(group_runs(runs))
    groups = [group for alike in sets for group in alike.groups]
    reference = _reference(groups, options)
    views = [budget_views(alike, reference) for alike in sets]
    with explained(f"write the report to {options.out}"):
        tables = write_tables(options.out / "tables", groups, views)
    return Report(
        title=f"Comparison of {len(runs)} runs" if len(runs) > 1 else f"Run {runs[0].row.run}",
        made=_how_made(options),
        sets=sets,
        views=views,
        folder=options.out.absolute(),
        tables=[f"tables/{name}" for name in tables],
        claim=claim,
    )


def _how_made(options: ReportOptions) -> str:
    if options.is_results_only:
        return "Of results alone, without times, machines, starts and run numbers."
    return f"Made {datetime.now():%Y-%m-%d %H:%M} from {', '.join(options.places)}."


def _conditions(options: ReportOptions) -> Iterator[RunCondition]:
    if options.sweep:
        yield RunCondition("job", "=", f"{options.sweep}-{'[0-9a-f]' * 12}")
    for text in options.query:
        yield read_condition(text, "--query")


def _chosen(
    runs: Sequence[Run], conditions: Sequence[RunCondition], options: ReportOptions
) -> list[Run]:
    rows = [row_of(run) for run in runs]
    kept = {row.run for row in select(rows, conditions)}
    if not kept:
        there = f"none of the {len(runs)} in" if runs else "none in"
        places = " ".join(options.places)
        raise Misused(
            f"a report must have a run, got {there} {places}; see scripts/runs.py for those."
        )
    if options.metric:
        check_known(options.metric, names_in(rows))
    found = [(row, run) for row, run in zip(rows, runs, strict=True) if row.run in kept]
    return [run for _, run in sorted(found, key=lambda pair: _order(pair[0]))]


def _order(row: RunRow) -> tuple[list[tuple[str, bool, float, str]], str]:
    """Order runs by what they computed, and not by which happened to start first."""
    left_out = {*NAMES_AND_PLACES, *NO_EFFECT, "site_ids"}
    settings = [
        (name, not _is_number(value), value if _is_number(value) else 0.0, str(value))
        for name, value in sorted(row.settings.items())
        if name not in left_out and not name.startswith("tracking.")
    ]
    return settings, str(row.job)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _reference(groups: Sequence[RunGroup], options: ReportOptions) -> RunGroup | None:
    """Find the group that the others are compared with; None: the first of each part."""
    if not options.reference:
        return None
    conditions = [read_condition(text, "--reference") for text in options.reference]
    rows = {id(group.runs[0].row): group for group in groups if group.is_ended}
    found = select([group.runs[0].row for group in rows.values()], conditions)
    if len(found) != 1:
        raise Misused(
            f"--reference must name one group of runs, got {len(found)} that meet "
            f"{' and '.join(options.reference)}; name the settings in which it differs."
        )
    return rows[id(found[0])]
