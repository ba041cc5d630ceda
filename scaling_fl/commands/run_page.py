"""The page of a single run, in its folder: what scripts/report.py says of one run."""

import os
from datetime import datetime
from pathlib import Path

from scaling_fl.commands.charting import page_script
from scaling_fl.commands.endings import stage
from scaling_fl.commands.measured import report_run
from scaling_fl.reporting.report.groups import alike_sets, group_runs
from scaling_fl.reporting.report.page import Report, Script, render
from scaling_fl.reporting.report.records import PAGE
from scaling_fl.runtime.tracking.run_files import replace_file
from scaling_fl.runtime.tracking.runs import Run, from_here


def leave_page(run: Run) -> None:
    """Write the page of a run that has ended to its folder, with the script for all pages beside.

    Whatever goes wrong is told, and costs the run nothing.
    """
    try:
        if run.folder:
            _write(run, run.folder.absolute())
    except Exception as error:
        # A fault in what only shows a run must not make a run that went well a failed one.
        stage(
            f"warning: {PAGE} of the run could not be written ({type(error).__name__}: {error}); "
            f"the run is complete, and `scripts/report.py {from_here(str(run.folder))}` shows it."
        )


def _write(run: Run, folder: Path) -> None:
    described = report_run(run)
    report = Report(
        title=f"Run {described.row.run} ({described.row.job})",
        made=f"As it ended, {datetime.now():%Y-%m-%d %H:%M}.",
        sets=alike_sets(group_runs([described])),
        views=[[]],
        folder=folder,
    )
    script = page_script()
    leave_script(script, folder.parent)
    replace_file(folder / PAGE, render(report, script, folder="..").encode())


def leave_script(script: Script, runs_dir: Path) -> None:
    """Put the script that the pages of all runs share beside them, if it has been made."""
    file = runs_dir / script.name
    if script.text and not file.exists():
        replace_file(file, script.text.encode(), owner=f".{os.getpid()}")
