"""A run without what depends on when and where it was computed, and in how many starts."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from scaling_fl.reporting.comparison import SECONDS
from scaling_fl.reporting.report.data import ReportRun

_WHERE = ("site_ids", "device", "num_threads", "author", "checkpoints_dir", "tracking.runs_dir")


def results_only(run: ReportRun) -> ReportRun:
    """Leave out times, machines, starts and run numbers; a run is named by its job.

    Two reports of runs with the same results are then the same, to the last byte.
    """
    name = run.row.job or run.row.run
    settings = dict(run.row.settings)
    sites = settings.get("site_ids") or []
    settings["num_clients"] = settings.get("num_clients") or len(sites) or None
    row = replace(
        run.row,
        run=name,
        seconds=None,
        started=None,
        host=None,
        settings={key: value for key, value in settings.items() if key not in _WHERE},
        metrics=_timeless(run.row.metrics),
    )
    spent = {key: value for key, value in run.measured.spent.items() if key != SECONDS}
    return replace(
        run,
        row=row,
        measured=replace(run.measured, run=name, spent=spent),
        curves=_timeless(run.curves),
        clients=[{k: v for k, v in row.items() if k != "seconds"} for row in run.clients],
        notes=(),
        attempts=(),
        folder=None,
        checkpoint=None,
    )


def _timeless(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if not name.startswith("time.")}
