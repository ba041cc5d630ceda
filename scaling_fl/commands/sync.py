"""The command ``scripts/sync_runs.py``: complete the runs, and deliver them to the trackers."""

import json
import os
from functools import partial
from pathlib import Path

from scaling_fl.commands.endings import Misused, end, show
from scaling_fl.core.errors import UserError
from scaling_fl.runtime.tracking.addresses import SettingsError
from scaling_fl.runtime.tracking.event_files import is_tensorboard_installed
from scaling_fl.runtime.tracking.follower import Tracker, deliver, is_delivered
from scaling_fl.runtime.tracking.journals import JournalSource
from scaling_fl.runtime.tracking.run_folder import RunFolder
from scaling_fl.runtime.tracking.runs import RUNNING, is_run_folder, run_folders
from scaling_fl.runtime.tracking.sources import open_source
from scaling_fl.runtime.tracking.trackers import named_trackers

# Nothing waits for this command, so a large file on a slow line may take its time.
SOCKET_SECONDS = 30.0


def main(runs_dir: Path, *, again: bool) -> int:
    """Deliver the runs of a folder, with ``again`` those marked as delivered, too."""
    return end(partial(_run, runs_dir, again=again))


def _run(runs_dir: Path, *, again: bool) -> None:
    try:
        trackers = named_trackers(os.environ, socket_seconds=SOCKET_SECONDS)
        runs = _runs(runs_dir)
        completed = [run for run in runs if is_run_folder(run) and _complete(run)]
        if not trackers and not completed:
            raise _no_tracker()
        problems = [_deliver_all(runs, tracker, again=again) for tracker in trackers]
    except SettingsError as error:
        raise Misused(str(error)) from None
    if any(problems):
        raise UserError("; ".join(problem for problem in problems if problem))


def _runs(runs_dir: Path) -> list[Path]:
    try:
        return run_folders(runs_dir)
    except UserError as error:
        raise Misused(str(error)) from None


def _no_tracker() -> Misused:
    return Misused(
        "no database and no MLflow server is named; set SACRED_MONGO_URI (or SACRED_USER, "
        "SACRED_PASSWORD, SACRED_HOST and SACRED_DATABASE), or MLFLOW_TRACKING_URI, in the "
        "environment or in .env."
    )


def _complete(run: Path) -> bool:
    """Complete a folder from the journal of its job, print its line, and tell whether it was."""
    source = open_source(str(run))
    if not isinstance(source, JournalSource):
        return False  # the journal is elsewhere
    found = source.load()
    record = found.record
    # Event files can be completed only where their library is.
    has_events = found.config.get("tracking", {}).get("tensorboard") and is_tensorboard_installed()
    folder = RunFolder(
        run.parent,
        run_id=run.name,
        uid=str(record.uid),
        job_name=str(record.job_name),
        has_events=bool(has_events),
    )
    if found.status == RUNNING or not folder.complete(record):
        return False
    show(f"run {run.name}: completed from the journal of its job")
    return True


def _deliver_all(runs: list[Path], tracker: Tracker, *, again: bool) -> str:
    """Deliver runs to a tracker; return what kept some from being delivered."""
    try:
        tracker.ping()
        left = [run.name for run in runs if not _deliver(run, tracker, again=again)]
    except Exception as error:
        if not tracker.is_away(error):
            raise
        return f"{tracker.failure(error)}; nothing is lost, try again later"
    finally:
        tracker.close()
    names = ", ".join(left)
    return f"these runs could not be delivered: {names}; see their lines above" if left else ""


def _deliver(run: Path, tracker: Tracker, *, again: bool) -> bool:
    """Deliver a run, print its line, and tell whether there is nothing left of it to deliver."""
    if not _is_ours(run):
        show(f"run {run.name}: passed over, it is not a run of this project")
        return True
    if not again and is_delivered(run, tracker):
        show(f"run {run.name}: already delivered")
        return True
    try:
        number = deliver(run, tracker)
    except Exception as error:
        if tracker.is_away(error) or not tracker.is_refusal(error):
            raise
        tracker.forget()
        show(f"run {run.name}: cannot be delivered ({type(error).__name__}: {error})")
        return False
    show(f"run {run.name}: delivered to {tracker.target} as run {number}")
    return True


def _is_ours(run: Path) -> bool:
    """Tell a run of this project, which has a uid from its first moment, from any other folder."""
    try:
        return "uid" in json.loads((run / "info.json").read_bytes())
    except (OSError, ValueError, TypeError):
        return False
