"""The command ``scripts/watch.py``: what the console of a run shows, from another terminal."""

import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from scaling_fl.commands.endings import Misused, end, raise_on_signals
from scaling_fl.core.errors import UserError
from scaling_fl.reporting.console import Console
from scaling_fl.reporting.summary import how_to_train_further, summary
from scaling_fl.runtime.tracking.runs import (
    DEAD,
    RUNNING,
    Run,
    RunSource,
    is_run_folder,
    run_folders,
)
from scaling_fl.runtime.tracking.sources import open_source


def main(place: str | None, *, runs_dir: Path, is_once: bool) -> int:
    """Show a run, or the newest of ``runs_dir``, until it ends; returns the exit code."""
    raise_on_signals()
    return end(partial(_run, place, runs_dir, is_once=is_once))


def _run(place: str | None, runs_dir: Path, *, is_once: bool) -> None:
    source = open_source(place or _newest(runs_dir))
    run = source.load()
    console = Console(num_rounds=run.num_rounds)
    try:
        console.line(header(run))
        is_followed = not is_once
        while _show_news(source, console) and is_followed and not console.is_silent:
            console.tick()
            time.sleep(source.poll_seconds)
    finally:
        console.close()
    run = source.load()
    if run.status in (RUNNING, DEAD) or not source.tells_its_end:
        console.line(closing(run))


def _show_news(source: RunSource, console: Console) -> bool:
    """Show what is new, and say whether there may be more."""
    # In this order: what was journaled before the run was seen to have ended is not missed.
    may_be_more = source.is_running()
    for event in source.read_new():
        if may_be_more or event["event"] != "progress":
            console.show(event)
    return may_be_more


def _newest(runs_dir: Path) -> str:
    try:
        found = [path for path in run_folders(runs_dir) if is_run_folder(path)]
    except UserError as error:
        raise Misused(str(error)) from None
    if not found:
        raise Misused(f"--runs-dir must hold a run, got {runs_dir}, which has none; name a run.")
    return str(found[-1])


def header(run: Run) -> str:
    """Say which run it is, what became of it, where it is and since when."""
    record = run.record
    where = f"started {_moment(record.started)} on {record.host or 'an unknown host'}"
    process = f", process {record.pid}" if record.pid else ""
    return f"Job {record.job_name or '?'} ({run.where}) is {run.status}; {where}{process}."


def closing(run: Run) -> str:
    """Write the closing summary; of a dead run also who died, and when it was last alive."""
    facts: dict[str, Any] = run.facts()
    record = run.record
    if run.status == RUNNING:
        facts["resume_command"] = None
    if run.status == DEAD:
        facts["message"] = (
            f"its process {record.pid} on {record.host} is gone, and its last sign of life was "
            f"{_moment(record.last_event)}."
        )
    further = how_to_train_further(run.config, run.num_rounds, record.stopped_by)
    return summary(facts, further=further)


def _moment(text: str | None) -> str:
    """Write a time of the record as this machine's clock shows it."""
    if not text:
        return "at an unknown time"
    return f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M:%S}"
