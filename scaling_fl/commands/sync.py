"""The command ``scripts/sync_runs.py``: complete the runs, and deliver them to the database."""

import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling_fl.commands.endings import Misused, end, show
from scaling_fl.core.errors import UserError
from scaling_fl.runtime.tracking.event_files import is_tensorboard_installed
from scaling_fl.runtime.tracking.journals import JournalSource
from scaling_fl.runtime.tracking.mirror import deliver, is_delivered
from scaling_fl.runtime.tracking.mongo_settings import (
    MongoSettings,
    SettingsError,
    failure_sentence,
    settings_from_environment,
)
from scaling_fl.runtime.tracking.run_folder import RunFolder
from scaling_fl.runtime.tracking.runs import RUNNING, is_run_folder, run_folders
from scaling_fl.runtime.tracking.sources import open_source

if TYPE_CHECKING:
    from pymongo.database import Database

# Nothing waits for this command, so a large file on a slow line may take its time.
SOCKET_SECONDS = 30.0


def main(runs_dir: Path, *, again: bool) -> int:
    """Deliver the runs of a folder, with ``again`` those marked as delivered, too."""
    return end(partial(_run, runs_dir, again=again))


def _run(runs_dir: Path, *, again: bool) -> None:
    from pymongo.errors import PyMongoError

    settings: MongoSettings | None = None
    try:
        settings = settings_from_environment(os.environ)
        runs = _runs(runs_dir)
        completed = [run for run in runs if is_run_folder(run) and _complete(run)]
        if settings is None:
            if completed:
                return
            raise _no_database()
        with settings.connect(socket_seconds=SOCKET_SECONDS) as client:
            client.admin.command("ping")
            database = client[settings.database]
            left = [run for run in runs if not _deliver(run, database, settings, again=again)]
    except SettingsError as error:
        raise Misused(str(error)) from None
    except PyMongoError as error:
        assert settings
        sentence = failure_sentence(error, settings)
        raise UserError(f"{sentence}; nothing is lost, try again later.") from None
    if left:
        names = ", ".join(run.name for run in left)
        raise UserError(f"these runs could not be delivered: {names}; see their lines above.")


def _runs(runs_dir: Path) -> list[Path]:
    try:
        return run_folders(runs_dir)
    except UserError as error:
        raise Misused(str(error)) from None


def _no_database() -> Misused:
    return Misused(
        "no database is named; set SACRED_MONGO_URI, or SACRED_USER, SACRED_PASSWORD, "
        "SACRED_HOST and SACRED_DATABASE, in the environment or in .env."
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


def _deliver(
    run: Path, database: "Database[dict[str, Any]]", settings: MongoSettings, *, again: bool
) -> bool:
    """Deliver a run, print its line, and tell whether there is nothing left of it to deliver."""
    from bson.errors import BSONError

    if not _is_ours(run):
        show(f"run {run.name}: passed over, it is not a run of this project")
        return True
    if not again and is_delivered(run, settings):
        show(f"run {run.name}: already delivered")
        return True
    try:
        number = deliver(run, database, settings)
    except (BSONError, OSError, LookupError, ValueError) as error:
        show(f"run {run.name}: cannot be delivered ({type(error).__name__}: {error})")
        return False
    show(f"run {run.name}: delivered to {settings.target} as run {number}")
    return True


def _is_ours(run: Path) -> bool:
    """Tell a run of this project, which has a uid from its first moment, from any other folder."""
    try:
        return "uid" in json.loads((run / "info.json").read_bytes())
    except (OSError, ValueError, TypeError):
        return False
